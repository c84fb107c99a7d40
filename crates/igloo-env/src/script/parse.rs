//! Reads shell scripts: POSIX grammar with bash's `[[`, `function` and `+=`, as far as scripts of packages go.
//!
//! What it cannot read it refuses, with the line; nothing is ever guessed.

use std::rc::Rc;

use super::ast::{Node, Part, Redirect, RedirectKind, Script, Word};

/// Deepest nesting of commands and words; the deepest script seen needs 12.
const MAX_DEPTH: u32 = 60;

/// A script that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong there.
    pub what: &'static str,
}

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses a whole script.
pub fn parse(text: &str) -> Result<Script> {
    let mut p = Parser { text: text.as_bytes(), at: 0, line: 1, depth: 0, heredocs: Vec::new(), pending: Vec::new() };
    let body = p.list(&[])?;
    if p.at < p.text.len() {
        return p.fail("unexpected sign");
    }
    Ok(Script { body, heredocs: p.heredocs })
}

struct Pending {
    index: usize,
    end: String,
    strip: bool,
    quoted: bool,
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    depth: u32,
    heredocs: Vec<Word>,
    pending: Vec<Pending>,
}

const RESERVED: &[&str] = &["then", "else", "elif", "fi", "do", "done", "esac", "}"];

impl Parser<'_> {
    fn fail<T>(&self, what: &'static str) -> Result<T> {
        Err(SyntaxError { line: self.line, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn starts(&self, text: &str) -> bool {
        self.text[self.at..].starts_with(text.as_bytes())
    }

    fn eat(&mut self, text: &str) -> bool {
        let there = self.starts(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { self.fail("nested too deeply") } else { Ok(()) }
    }

    /// Spaces, comments and escaped line ends, but no line end.
    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.text.get(self.at + 1) == Some(&b'\n') => {
                    self.at += 2;
                    self.line += 1;
                }
                Some(b'#') => {
                    while self.peek().is_some_and(|c| c != b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn newline(&mut self) -> Result<()> {
        self.at += 1;
        self.line += 1;
        for pending in std::mem::take(&mut self.pending) {
            self.heredoc(&pending)?;
        }
        Ok(())
    }

    fn heredoc(&mut self, pending: &Pending) -> Result<()> {
        let (start, mut body) = (self.line, String::new());
        loop {
            if self.at >= self.text.len() {
                return self.fail("a here document does not end");
            }
            let rest = &self.text[self.at..];
            let length = rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len());
            let line = String::from_utf8_lossy(&rest[..length]).into_owned();
            self.at = (self.at + length + 1).min(self.text.len());
            self.line += 1;
            let line = if pending.strip { line.trim_start_matches('\t') } else { &line };
            if line == pending.end {
                break;
            }
            body.push_str(line);
            body.push('\n');
        }
        let word = if pending.quoted {
            vec![Part::Literal { text: body, quoted: true }]
        } else {
            let mut inner = Parser {
                text: body.as_bytes(),
                at: 0,
                line: start,
                depth: self.depth,
                heredocs: Vec::new(),
                pending: Vec::new(),
            };
            let mut word = Word::new();
            inner.double_quoted(&mut word, None)?;
            if !inner.heredocs.is_empty() {
                return self.fail("a here document inside another");
            }
            word
        };
        self.heredocs[pending.index] = word;
        Ok(())
    }

    fn skip_lines(&mut self) -> Result<()> {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'\n') => self.newline()?,
                _ => return Ok(()),
            }
        }
    }

    /// The bare word at this place, if it is one.
    fn bare(&self) -> &str {
        let rest = &self.text[self.at..];
        let end =
            rest.iter().position(|c| c.is_ascii_whitespace() || b";&|()<>\"'$`\\".contains(c)).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).unwrap_or("")
    }

    fn keyword(&mut self, word: &'static str) -> Result<()> {
        self.skip_lines()?;
        if self.bare() == word {
            self.at += word.len();
            Ok(())
        } else {
            self.fail("a keyword is missing")
        }
    }

    /// Commands until one of `ends`, a closing sign or the end.
    fn list(&mut self, ends: &[&str]) -> Result<Node> {
        self.enter()?;
        let mut commands = Vec::new();
        loop {
            self.skip_lines()?;
            match self.peek() {
                None | Some(b')') => break,
                Some(b';') => {
                    if self.starts(";;") || self.starts(";&") {
                        break;
                    }
                    self.at += 1;
                    continue;
                }
                Some(b'&') if !self.starts("&&") => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let bare = self.bare();
            if ends.contains(&bare) {
                break;
            }
            if RESERVED.contains(&bare) {
                return self.fail("a keyword stands where a command should");
            }
            let command = self.and_or()?;
            commands.push(command);
        }
        self.depth -= 1;
        Ok(if commands.len() == 1 { commands.remove(0) } else { Node::List(commands) })
    }

    fn and_or(&mut self) -> Result<Node> {
        let mut left = self.pipeline()?;
        loop {
            self.blanks();
            let and = self.starts("&&");
            if !and && !self.starts("||") {
                return Ok(left);
            }
            self.at += 2;
            self.skip_lines()?;
            let right = Box::new(self.pipeline()?);
            left = if and { Node::And(Box::new(left), right) } else { Node::Or(Box::new(left), right) };
        }
    }

    fn pipeline(&mut self) -> Result<Node> {
        self.blanks();
        if self.bare() == "!" {
            self.at += 1;
            return Ok(Node::Not(Box::new(self.pipeline()?)));
        }
        let mut parts = vec![self.command()?];
        loop {
            self.blanks();
            if self.starts("||") || self.peek() != Some(b'|') {
                break;
            }
            self.at += 1;
            self.eat("&");
            self.skip_lines()?;
            parts.push(self.command()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Pipe(parts) })
    }

    fn command(&mut self) -> Result<Node> {
        self.enter()?;
        let compound = match self.bare() {
            "if" => self.conditional()?,
            "for" => self.for_loop()?,
            "while" | "until" => {
                self.at += 5;
                let condition = Box::new(self.list(&["do"])?);
                self.keyword("do")?;
                let body = Box::new(self.list(&["done"])?);
                self.keyword("done")?;
                Node::While { condition, body }
            }
            "case" => self.case()?,
            "function" => {
                self.at += 8;
                self.blanks();
                let name = self.bare().to_owned();
                self.at += name.len();
                self.function(name)?
            }
            "{" => {
                self.at += 1;
                let body = self.list(&["}"])?;
                self.keyword("}")?;
                body
            }
            _ if self.starts("((") => return self.fail("arithmetic commands are not understood"),
            _ if self.peek() == Some(b'(') => {
                self.at += 1;
                let body = self.list(&[])?;
                if !self.eat(")") {
                    return self.fail("a parenthesis is not closed");
                }
                Node::Subshell(Box::new(body))
            }
            _ => {
                let node = self.simple()?;
                self.depth -= 1;
                return Ok(node);
            }
        };
        let mut redirects = Vec::new();
        loop {
            self.blanks();
            match self.redirect()? {
                Some(redirect) => redirects.push(redirect),
                None => break,
            }
        }
        self.depth -= 1;
        Ok(if redirects.is_empty() { compound } else { Node::Redirected(Box::new(compound), redirects) })
    }

    fn conditional(&mut self) -> Result<Node> {
        self.at += 2;
        let (mut arms, mut otherwise) = (Vec::new(), None);
        loop {
            let condition = self.list(&["then"])?;
            self.keyword("then")?;
            arms.push((condition, self.list(&["elif", "else", "fi"])?));
            match self.bare() {
                "elif" => self.at += 4,
                "else" => {
                    self.at += 4;
                    otherwise = Some(Box::new(self.list(&["fi"])?));
                    break;
                }
                _ => break,
            }
        }
        self.keyword("fi")?;
        Ok(Node::If { arms, otherwise })
    }

    fn for_loop(&mut self) -> Result<Node> {
        self.at += 3;
        self.blanks();
        let name = self.bare().to_owned();
        if name.is_empty() {
            return self.fail("this kind of loop is not understood");
        }
        self.at += name.len();
        self.skip_lines()?;
        let mut words = None;
        if self.bare() == "in" {
            self.at += 2;
            let mut list = Vec::new();
            loop {
                self.blanks();
                match self.peek() {
                    None | Some(b'\n' | b';') => break,
                    _ => list.push(self.word()?),
                }
            }
            words = Some(list);
        }
        self.blanks();
        self.eat(";");
        self.keyword("do")?;
        let body = Box::new(self.list(&["done"])?);
        self.keyword("done")?;
        Ok(Node::For { name, words, body })
    }

    fn case(&mut self) -> Result<Node> {
        self.at += 4;
        self.blanks();
        let word = self.word()?;
        self.keyword("in")?;
        let mut arms = Vec::new();
        loop {
            self.skip_lines()?;
            if self.bare() == "esac" {
                break;
            }
            self.eat("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?);
                self.blanks();
                if self.eat(")") {
                    break;
                }
                if !self.eat("|") {
                    return self.fail("a pattern does not end");
                }
            }
            let body = self.list(&["esac"])?;
            arms.push((patterns, body));
            if self.starts(";&") || self.starts(";;&") {
                return self.fail("falling through a case is not understood");
            }
            self.eat(";;");
        }
        self.keyword("esac")?;
        Ok(Node::Case { word, arms })
    }

    fn function(&mut self, name: String) -> Result<Node> {
        self.blanks();
        if self.eat("(") {
            self.blanks();
            if !self.eat(")") {
                return self.fail("a function's parenthesis is not closed");
            }
        }
        self.skip_lines()?;
        let body = Rc::new(self.command()?);
        Ok(Node::Function { name, body })
    }

    fn simple(&mut self) -> Result<Node> {
        let line = self.line;
        let (mut assigns, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            let Some(c) = self.peek() else { break };
            // Inside `[[ … ]]` these are operators, not separators.
            let test = matches!(words.first().map(Vec::as_slice), Some([Part::Literal { text, .. }]) if text == "[[");
            if test && (b"&|()<".contains(&c)) {
                let length = if self.starts("&&") || self.starts("||") { 2 } else { 1 };
                let text = String::from_utf8_lossy(&self.text[self.at..self.at + length]).into_owned();
                self.at += length;
                words.push(vec![Part::Literal { text, quoted: true }]);
                continue;
            }
            if c == b'('
                && words.len() == 1
                && assigns.is_empty()
                && let [Part::Literal { text, quoted: false }] = words[0].as_slice()
            {
                return self.function(text.clone());
            }
            if matches!(c, b'\n' | b';' | b'&' | b'|' | b'(' | b')') {
                break;
            }
            if words.is_empty()
                && let Some(assign) = self.assignment()?
            {
                assigns.push(assign);
                continue;
            }
            words.push(self.word()?);
        }
        if assigns.is_empty() && words.is_empty() && redirects.is_empty() {
            return self.fail("a command is missing");
        }
        Ok(Node::Simple { assigns, words, redirects, line })
    }

    fn assignment(&mut self) -> Result<Option<(String, Word)>> {
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count();
        if length == 0 || rest[0].is_ascii_digit() {
            return Ok(None);
        }
        let append = rest[length..].starts_with(b"+=");
        if !append && rest.get(length) != Some(&b'=') {
            return Ok(None);
        }
        let name = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1 + usize::from(append);
        if self.peek() == Some(b'(') {
            return self.fail("arrays are not understood");
        }
        let ends = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_whitespace() || b";&|()".contains(&c));
        let mut word = if ends(self.peek()) { Word::new() } else { self.word()? };
        if append {
            word.insert(0, Part::Parameter { name: name.clone(), op: None, quoted: true });
        }
        Ok(Some((name, word)))
    }

    fn redirect(&mut self) -> Result<Option<Redirect>> {
        let rest = &self.text[self.at..];
        let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
        let both = rest.starts_with(b"&>");
        let sign = rest.get(digits + usize::from(both)).copied();
        if !matches!(sign, Some(b'<' | b'>')) || digits > 2 {
            return Ok(None);
        }
        let fd = std::str::from_utf8(&rest[..digits]).ok().and_then(|d| d.parse().ok());
        self.at += digits + usize::from(both);
        if self.starts("<(") || self.starts(">(") || self.starts("<<<") {
            return self.fail("this redirection is not understood");
        }
        if self.eat("<<") {
            let strip = self.eat("-");
            self.blanks();
            let word = self.word()?;
            let quoted = word.iter().any(|p| matches!(p, Part::Literal { quoted: true, .. }));
            let mut end = String::new();
            for part in &word {
                match part {
                    Part::Literal { text, .. } => end.push_str(text),
                    _ => return self.fail("the end of a here document is no plain word"),
                }
            }
            let index = self.heredocs.len();
            self.heredocs.push(Word::new());
            self.pending.push(Pending { index, end, strip, quoted });
            return Ok(Some(Redirect { fd, kind: RedirectKind::Here(index) }));
        }
        let make: fn(Word) -> RedirectKind = if self.eat(">>") {
            RedirectKind::Append
        } else if self.eat(">&") || self.eat("<&") {
            RedirectKind::Duplicate
        } else if self.eat(">|") || self.eat(">") {
            RedirectKind::Write
        } else {
            if !self.eat("<>") {
                self.eat("<");
            }
            RedirectKind::Read
        };
        self.blanks();
        Ok(Some(Redirect { fd, kind: make(self.word()?) }))
    }

    fn word(&mut self) -> Result<Word> {
        self.enter()?;
        let (mut word, start) = (Word::new(), self.at);
        loop {
            match self.peek() {
                None => break,
                Some(c) if c.is_ascii_whitespace() || b";&|()<>".contains(&c) => break,
                Some(b'\\') => {
                    match self.text.get(self.at + 1) {
                        Some(b'\n') => self.line += 1,
                        Some(_) => {
                            let text = self.character(self.at + 1);
                            self.at += text.len() - 1;
                            push(&mut word, &text, true);
                        }
                        None => {}
                    }
                    self.at = (self.at + 2).min(self.text.len());
                }
                Some(b'\'') => {
                    self.at += 1;
                    let rest = &self.text[self.at..];
                    let Some(end) = rest.iter().position(|&c| c == b'\'') else {
                        return self.fail("a quote is not closed");
                    };
                    push(&mut word, &String::from_utf8_lossy(&rest[..end]), true);
                    self.line += rest[..end].iter().filter(|&&c| c == b'\n').count() as u32;
                    self.at += end + 1;
                }
                Some(b'"') => {
                    self.at += 1;
                    push(&mut word, "", true);
                    self.double_quoted(&mut word, Some(b'"'))?;
                }
                Some(b'`') => self.backquote(&mut word, false)?,
                Some(b'$') => self.dollar(&mut word, false)?,
                Some(_) => {
                    let text = self.character(self.at);
                    self.at += text.len();
                    push(&mut word, &text, false);
                }
            }
        }
        self.depth -= 1;
        if self.at == start { self.fail("a word is missing") } else { Ok(word) }
    }

    /// The UTF-8 character at `at`; a byte that is none as the replacement character would change lengths, so
    /// scripts are checked to be UTF-8 before.
    fn character(&self, at: usize) -> String {
        let length = match self.text[at] {
            0..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        let end = (at + length).min(self.text.len());
        String::from_utf8_lossy(&self.text[at..end]).into_owned()
    }

    /// Text in double quotes (`end` is the quote) or a here document (`end` is `None`).
    fn double_quoted(&mut self, word: &mut Word, end: Option<u8>) -> Result<()> {
        loop {
            match self.peek() {
                None if end.is_none() => return Ok(()),
                None => return self.fail("a quote is not closed"),
                c if c == end => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => match self.text.get(self.at + 1) {
                    Some(b'\n') => {
                        self.at += 2;
                        self.line += 1;
                    }
                    Some(&c) if b"$`\\\"".contains(&c) => {
                        push(word, &char::from(c).to_string(), true);
                        self.at += 2;
                    }
                    _ => {
                        push(word, "\\", true);
                        self.at += 1;
                    }
                },
                Some(b'`') => self.backquote(word, true)?,
                Some(b'$') => self.dollar(word, true)?,
                Some(c) => {
                    self.line += u32::from(c == b'\n');
                    let text = self.character(self.at);
                    self.at += text.len();
                    push(word, &text, true);
                }
            }
        }
    }

    fn backquote(&mut self, word: &mut Word, quoted: bool) -> Result<()> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return self.fail("a backquote is not closed"),
                Some(b'`') => break,
                Some(b'\\') if self.text.get(self.at + 1).is_some_and(|c| b"$`\\".contains(c)) => {
                    text.push(char::from(self.text[self.at + 1]));
                    self.at += 2;
                }
                Some(_) => {
                    let c = self.character(self.at);
                    self.at += c.len();
                    text.push_str(&c);
                }
            }
        }
        self.at += 1;
        let depth = self.depth + 1;
        let mut inner =
            Parser { text: text.as_bytes(), at: 0, line: self.line, depth, heredocs: Vec::new(), pending: Vec::new() };
        let body = Rc::new(inner.list(&[])?);
        if !inner.heredocs.is_empty() {
            return self.fail("a here document in backquotes");
        }
        self.line += text.bytes().filter(|&c| c == b'\n').count() as u32;
        word.push(Part::Command { body, quoted });
        Ok(())
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<()> {
        self.at += 1;
        if self.starts("((") {
            let mut open = 0i32;
            while let Some(c) = self.peek() {
                self.at += 1;
                open += i32::from(c == b'(') - i32::from(c == b')');
                if open == 0 {
                    word.push(Part::Arithmetic);
                    return Ok(());
                }
            }
            return self.fail("arithmetic does not end");
        }
        if self.eat("(") {
            let body = Rc::new(self.list(&[])?);
            if !self.eat(")") {
                return self.fail("a substitution does not end");
            }
            word.push(Part::Command { body, quoted });
            return Ok(());
        }
        if self.eat("{") {
            return self.braces(word, quoted);
        }
        let rest = &self.text[self.at..];
        let length = match rest.first() {
            Some(c) if c.is_ascii_alphabetic() || *c == b'_' => {
                rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count()
            }
            Some(c) if c.is_ascii_digit() || b"@*#?$!-".contains(c) => 1,
            _ => {
                push(word, "$", quoted);
                return Ok(());
            }
        };
        let name = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length;
        word.push(Part::Parameter { name, op: None, quoted });
        Ok(())
    }

    fn braces(&mut self, word: &mut Word, quoted: bool) -> Result<()> {
        const OPS: &[&str] = &[":-", ":=", ":+", ":?", "%%", "##", "-", "=", "+", "?", "%", "#"];
        let length_of = self.starts("#") && self.text.get(self.at + 1).is_some_and(|c| *c != b'}');
        self.at += usize::from(length_of);
        let rest = &self.text[self.at..];
        let mut length = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count();
        if length == 0 && rest.first().is_some_and(|c| b"@*#?$!".contains(c)) {
            length = 1;
        }
        if length == 0 {
            return self.fail("this expansion is not understood");
        }
        let name = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length;
        let mut op = length_of.then(|| ("len", Word::new()));
        if let Some(sign) = OPS.iter().find(|o| self.starts(o)) {
            self.at += sign.len();
            let mut arg = Word::new();
            self.brace_argument(&mut arg)?;
            op = Some((sign, arg));
        }
        if !self.eat("}") {
            return self.fail("this expansion is not understood");
        }
        word.push(Part::Parameter { name, op, quoted });
        Ok(())
    }

    fn brace_argument(&mut self, word: &mut Word) -> Result<()> {
        self.enter()?;
        loop {
            match self.peek() {
                None => return self.fail("a brace is not closed"),
                Some(b'}') => break,
                Some(b'"') => {
                    self.at += 1;
                    self.double_quoted(word, Some(b'"'))?;
                }
                Some(b'\'') => {
                    self.at += 1;
                    while self.peek().is_some_and(|c| c != b'\'') {
                        let text = self.character(self.at);
                        self.at += text.len();
                        push(word, &text, true);
                    }
                    self.at += 1;
                }
                Some(b'\\') if self.at + 1 < self.text.len() => {
                    let text = self.character(self.at + 1);
                    self.at += 1 + text.len();
                    push(word, &text, true);
                }
                Some(b'$') => self.dollar(word, false)?,
                Some(b'`') => self.backquote(word, false)?,
                Some(c) => {
                    self.line += u32::from(c == b'\n');
                    let text = self.character(self.at);
                    self.at += text.len();
                    push(word, &text, false);
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }
}

/// Appends text, joining it to the last literal of the same kind.
fn push(word: &mut Word, more: &str, now: bool) {
    match word.last_mut() {
        Some(Part::Literal { text, quoted }) if *quoted == now => text.push_str(more),
        _ => word.push(Part::Literal { text: more.to_owned(), quoted: now }),
    }
}
