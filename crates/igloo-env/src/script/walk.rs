//! Walks a script along the way that a fresh installation takes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::ast::{Node, Part, Redirect, RedirectKind, Word};
use super::expand::{Field, matches};
use super::parse::parse;
use crate::EnvError;
use crate::identity::Registry;
use crate::layer::Layer;

/// Most commands of one script; the longest way seen is 3,000.
const MAX_STEPS: u32 = 50_000;
/// Deepest nesting of calls.
const MAX_CALLS: u32 = 30;
/// Most rounds of a loop.
const MAX_ROUNDS: usize = 2_000;
/// Longest output that is remembered.
const MAX_OUTPUT: usize = 1 << 20;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Yes,
    No,
    Maybe,
}

impl Status {
    pub(crate) fn of(yes: bool) -> Self {
        if yes { Status::Yes } else { Status::No }
    }

    pub(crate) fn not(self) -> Self {
        match self {
            Status::Yes => Status::No,
            Status::No => Status::Yes,
            Status::Maybe => Status::Maybe,
        }
    }
}

/// Where control goes after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    Break,
    Continue,
    Return,
    Exit,
}

type Step = Result<(Status, Flow), EnvError>;

/// One choice of an alternative: `update-alternatives --install`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alternative {
    pub(crate) name: String,
    pub(crate) link: String,
    pub(crate) path: String,
    pub(crate) priority: i64,
    /// Link, name, path.
    pub(crate) slaves: Vec<(String, String, String)>,
}

/// What scripts ask for that is not done on the spot.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) alternatives: Vec<Alternative>,
    /// Choices by hand: name, path.
    pub(crate) chosen: BTreeMap<String, String>,
    /// Diversions: path, its new place, the package that keeps its own file (none: every package's file moves).
    pub(crate) diversions: Vec<(String, String, Option<String>)>,
    /// Lines for `/etc/shells`.
    pub(crate) shells: BTreeSet<String>,
    /// Units to enable, where there is systemd.
    pub(crate) units: Vec<String>,
}

/// A function and the here documents of the script it is in.
type Function = (Rc<Node>, Rc<Vec<Word>>);

pub(crate) struct Walker<'w, 'u> {
    pub(crate) layer: &'w mut Layer<'u>,
    pub(crate) registry: &'w mut Registry,
    pub(crate) findings: &'w mut Findings,
    pub(crate) package: String,
    /// Defaults of debconf's questions.
    pub(crate) questions: BTreeMap<String, String>,
    pub(crate) vars: BTreeMap<String, Field>,
    pub(crate) params: Vec<Field>,
    pub(crate) functions: BTreeMap<String, Function>,
    heredocs: Rc<Vec<Word>>,
    /// How many conditions of unknown result are around.
    pub(crate) maybe: u32,
    steps: u32,
    calls: u32,
    pub(crate) line: u32,
    /// What the commands of a substitution have printed so far.
    output: Field,
    /// What a command can read.
    pub(crate) input: Field,
    /// Command lines that are not understood.
    pub(crate) unknown: Vec<(u32, String)>,
    /// What did something, by the name of its trigger.
    pub(crate) covers: BTreeSet<&'static str>,
}

impl<'w, 'u> Walker<'w, 'u> {
    pub(crate) fn new(
        layer: &'w mut Layer<'u>,
        registry: &'w mut Registry,
        findings: &'w mut Findings,
        package: &str,
        architecture: &str,
    ) -> Self {
        let known = |text: &str| Some(text.to_owned());
        let multiarch = match architecture {
            "arm64" => "aarch64-linux-gnu",
            _ => "x86_64-linux-gnu",
        };
        let vars = [
            ("DPKG_MAINTSCRIPT_PACKAGE", known(package)),
            ("DPKG_MAINTSCRIPT_ARCH", known(architecture)),
            ("DEB_HOST_MULTIARCH", known(multiarch)),
            ("DPKG_ROOT", known("")),
            ("DPKG_ADMINDIR", known("/var/lib/dpkg")),
            ("DEBIAN_FRONTEND", known("noninteractive")),
            ("PATH", known("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("IFS", known(" \t\n")),
            ("HOME", known("/root")),
            ("RANDOM", None),
            ("PWD", None),
            ("LANG", None),
        ];
        Self {
            layer,
            registry,
            findings,
            package: package.to_owned(),
            questions: BTreeMap::new(),
            vars: vars.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            params: Vec::new(),
            functions: BTreeMap::new(),
            heredocs: Rc::new(Vec::new()),
            maybe: 0,
            steps: 0,
            calls: 0,
            line: 0,
            output: None,
            input: None,
            unknown: Vec::new(),
            covers: BTreeSet::new(),
        }
    }

    /// Walks a whole script with these arguments.
    pub(crate) fn script(&mut self, name: &'static str, text: &[u8], args: &[&str]) -> Result<(), EnvError> {
        let first = text.split(|c| *c == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let program = first.strip_prefix("#!").unwrap_or_default();
        let shell =
            program.split_whitespace().take(2).any(|w| matches!(w.rsplit('/').next(), Some("sh" | "bash" | "dash")));
        if !shell {
            self.unknown.push((1, format!("#!{} is no shell", program.trim())));
            return Ok(());
        }
        self.vars.insert("DPKG_MAINTSCRIPT_NAME".into(), Some(name.into()));
        self.params = args.iter().map(|a| Some((*a).to_owned())).collect();
        let Ok(text) = std::str::from_utf8(text) else {
            self.unknown.push((1, "the script is not utf-8".into()));
            return Ok(());
        };
        let (_, flow) = self.source(text)?;
        // Nothing can follow, whatever it was.
        debug_assert!(matches!(flow, Flow::Go | Flow::Exit | Flow::Return | Flow::Break | Flow::Continue));
        self.functions.clear();
        Ok(())
    }

    /// Walks the text of a file in the current shell.
    pub(crate) fn source(&mut self, text: &str) -> Step {
        match parse(text) {
            Err(e) => {
                self.unknown.push((e.line, format!("not readable: {}", e.what)));
                Ok((Status::Maybe, Flow::Go))
            }
            Ok(script) => {
                let saved = std::mem::replace(&mut self.heredocs, Rc::new(script.heredocs));
                self.calls += 1;
                let step = if self.calls > MAX_CALLS { Ok((Status::Maybe, Flow::Go)) } else { self.run(&script.body) };
                self.calls -= 1;
                self.heredocs = saved;
                step
            }
        }
    }

    /// Value of a variable. One that nobody set is empty.
    pub(crate) fn variable(&self, name: &str) -> Field {
        match name {
            "#" => Some(self.params.len().to_string()),
            "0" => Some(format!("/var/lib/dpkg/info/{}.postinst", self.package)),
            "?" | "$" | "!" | "-" => None,
            _ => match name.parse::<usize>() {
                Ok(n) => self.params.get(n.wrapping_sub(1)).cloned().unwrap_or(Some(String::new())),
                Err(_) => self.vars.get(name).cloned().unwrap_or(Some(String::new())),
            },
        }
    }

    /// What a substitution becomes.
    pub(crate) fn substitute(&mut self, body: &Node) -> Result<Field, EnvError> {
        let saved = (self.output.replace(String::new()), self.vars.clone(), self.params.clone());
        let step = self.run(body);
        let (output, vars, params) = saved;
        self.vars = vars;
        self.params = params;
        let got = std::mem::replace(&mut self.output, output);
        step?;
        Ok(got.map(|text| text.trim_end_matches('\n').to_owned()))
    }

    /// A command printed this; `None` is something unknown.
    pub(crate) fn print(&mut self, text: Field) {
        match (&mut self.output, text) {
            (Some(output), Some(text)) if output.len() + text.len() < MAX_OUTPUT => output.push_str(&text),
            _ => self.output = None,
        }
    }

    /// Walks one way of several possible ones.
    fn perhaps(&mut self, node: &Node) -> Result<(), EnvError> {
        let before = self.vars.clone();
        let params = self.params.clone();
        self.maybe += 1;
        let step = self.run(node);
        self.maybe -= 1;
        step?;
        for (name, value) in &before {
            if self.vars.get(name) != Some(value) {
                self.vars.insert(name.clone(), None);
            }
        }
        for (name, value) in &mut self.vars {
            if !before.contains_key(name) {
                *value = None;
            }
        }
        self.params = params;
        Ok(())
    }

    pub(crate) fn run(&mut self, node: &Node) -> Step {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            if self.steps == MAX_STEPS + 1 {
                self.unknown.push((self.line, "the script is too long to follow".into()));
            }
            return Ok((Status::Maybe, Flow::Exit));
        }
        let (status, flow) = self.step(node)?;
        // On a way that may not be taken, what comes after it is walked too.
        let flow = if self.maybe > 0 && flow != Flow::Go { Flow::Go } else { flow };
        Ok((status, flow))
    }

    fn step(&mut self, node: &Node) -> Step {
        match node {
            Node::Simple { assigns, words, redirects, line } => self.simple(assigns, words, redirects, *line),
            Node::List(commands) => {
                let mut status = Status::Yes;
                for command in commands {
                    let flow;
                    (status, flow) = self.run(command)?;
                    if flow != Flow::Go {
                        return Ok((status, flow));
                    }
                }
                Ok((status, Flow::Go))
            }
            Node::Not(inner) => {
                let (status, flow) = self.run(inner)?;
                Ok((status.not(), flow))
            }
            Node::And(a, b) | Node::Or(a, b) => {
                let and = matches!(node, Node::And(..));
                let (status, flow) = self.run(a)?;
                if flow != Flow::Go {
                    return Ok((status, flow));
                }
                match status {
                    Status::Maybe => {
                        self.perhaps(b)?;
                        Ok((Status::Maybe, Flow::Go))
                    }
                    _ if (status == Status::Yes) == and => self.run(b),
                    _ => Ok((status, Flow::Go)),
                }
            }
            Node::Pipe(parts) => {
                let (output, vars, input) = (self.output.take(), self.vars.clone(), self.input.take());
                let mut status = Status::Maybe;
                for part in parts {
                    self.output = Some(String::new());
                    status = self.run(part)?.0;
                    self.input = self.output.take();
                }
                let printed = std::mem::replace(&mut self.input, input);
                self.vars = vars;
                self.output = output;
                self.print(printed);
                Ok((status, Flow::Go))
            }
            Node::If { arms, otherwise } => self.conditional(arms, otherwise.as_deref()),
            Node::For { name, words, body } => {
                let values = match words {
                    Some(words) => self.fields(words)?,
                    None => self.params.clone(),
                };
                if values.len() > MAX_ROUNDS {
                    self.unknown.push((self.line, format!("a loop over {} things", values.len())));
                }
                for value in values.into_iter().take(MAX_ROUNDS) {
                    self.vars.insert(name.clone(), value);
                    match self.run(body)?.1 {
                        Flow::Break => break,
                        flow @ (Flow::Return | Flow::Exit) => return Ok((Status::Yes, flow)),
                        Flow::Go | Flow::Continue => {}
                    }
                }
                Ok((Status::Yes, Flow::Go))
            }
            Node::While { condition, body } => {
                for _ in 0..MAX_ROUNDS {
                    match self.run(condition)?.0 {
                        Status::No => return Ok((Status::Yes, Flow::Go)),
                        Status::Maybe => {
                            self.perhaps(body)?;
                            return Ok((Status::Maybe, Flow::Go));
                        }
                        Status::Yes => match self.run(body)?.1 {
                            Flow::Break => return Ok((Status::Yes, Flow::Go)),
                            flow @ (Flow::Return | Flow::Exit) => return Ok((Status::Yes, flow)),
                            Flow::Go | Flow::Continue => {}
                        },
                    }
                    if self.maybe > 0 {
                        break;
                    }
                }
                Ok((Status::Maybe, Flow::Go))
            }
            Node::Case { word, arms } => self.case(word, arms),
            Node::Function { name, body } => {
                self.functions.insert(name.clone(), (Rc::clone(body), Rc::clone(&self.heredocs)));
                Ok((Status::Yes, Flow::Go))
            }
            Node::Subshell(inner) => {
                let saved = (self.vars.clone(), self.params.clone());
                let (status, _) = self.run(inner)?;
                (self.vars, self.params) = saved;
                Ok((status, Flow::Go))
            }
            Node::Redirected(inner, redirects) => {
                let sink = self.sink(redirects)?;
                let saved = (self.output.clone(), self.input.clone());
                self.feed(redirects)?;
                if sink != Sink::Same {
                    self.output = Some(String::new());
                }
                let step = self.run(inner);
                self.drain(&sink, saved.0);
                self.input = saved.1;
                step
            }
        }
    }

    fn conditional(&mut self, arms: &[(Node, Node)], otherwise: Option<&Node>) -> Step {
        let mut doubt = false;
        for (condition, body) in arms {
            let (status, flow) = self.run(condition)?;
            if flow != Flow::Go {
                return Ok((status, flow));
            }
            match status {
                Status::No => {}
                Status::Yes if !doubt => return self.run(body),
                Status::Yes => {
                    self.perhaps(body)?;
                    return Ok((Status::Maybe, Flow::Go));
                }
                Status::Maybe => {
                    doubt = true;
                    self.perhaps(body)?;
                }
            }
        }
        match otherwise {
            Some(body) if doubt => self.perhaps(body)?,
            Some(body) => return self.run(body),
            None => {}
        }
        Ok((if doubt { Status::Maybe } else { Status::Yes }, Flow::Go))
    }

    fn case(&mut self, word: &Word, arms: &[(Vec<Word>, Node)]) -> Step {
        let word = self.text(word)?;
        let mut doubt = false;
        for (patterns, body) in arms {
            let mut fits = Status::No;
            for pattern in patterns {
                // Quoted text in a pattern stands for itself.
                let mut escaped = Word::new();
                for part in pattern {
                    escaped.push(match part {
                        Part::Literal { text, quoted: true } => {
                            Part::Literal { text: text.chars().flat_map(|c| ['\\', c]).collect(), quoted: true }
                        }
                        part => part.clone(),
                    });
                }
                let anything = matches!(pattern.as_slice(), [Part::Literal { text, quoted: false }] if text == "*");
                match (&word, self.text(&escaped)?) {
                    _ if anything => fits = Status::Yes,
                    (Some(word), Some(pattern)) if matches(&pattern, word) => fits = Status::Yes,
                    (Some(_), Some(_)) => {}
                    _ if fits == Status::No => fits = Status::Maybe,
                    _ => {}
                }
            }
            match fits {
                Status::No => {}
                Status::Yes if !doubt => return self.run(body),
                Status::Yes => {
                    self.perhaps(body)?;
                    return Ok((Status::Maybe, Flow::Go));
                }
                Status::Maybe => {
                    doubt = true;
                    self.perhaps(body)?;
                }
            }
        }
        Ok((if doubt { Status::Maybe } else { Status::Yes }, Flow::Go))
    }

    fn simple(&mut self, assigns: &[(String, Word)], words: &[Word], redirects: &[Redirect], line: u32) -> Step {
        if self.calls <= 1 {
            self.line = line;
        }
        for (name, word) in assigns {
            let value = self.text(word)?;
            self.vars.insert(name.clone(), value);
        }
        let sink = self.sink(redirects)?;
        if words.is_empty() {
            self.drain(&sink, None);
            let computed = assigns.iter().any(|(_, w)| w.iter().any(|p| matches!(p, Part::Command { .. })));
            return Ok((if computed { Status::Maybe } else { Status::Yes }, Flow::Go));
        }
        let fields = self.fields(words)?;
        if fields.is_empty() {
            return Ok((Status::Yes, Flow::Go));
        }
        let before = self.output.clone();
        let fed = redirects.iter().any(|r| matches!(r.kind, RedirectKind::Here(_) | RedirectKind::Read(_)));
        let input = if fed { Some(self.input.take()) } else { None };
        self.feed(redirects)?;
        if sink != Sink::Same {
            self.output = Some(String::new());
        }
        let step = self.command(&fields);
        self.drain(&sink, before);
        // What a command reads of its caller's input is gone for the next one.
        if let Some(input) = input {
            self.input = input;
        }
        step
    }

    /// Calls a function of the script.
    pub(crate) fn call(&mut self, function: Function, args: &[Field]) -> Step {
        if self.calls >= MAX_CALLS {
            self.unknown.push((self.line, "functions call each other too deeply".into()));
            return Ok((Status::Maybe, Flow::Go));
        }
        let params = std::mem::replace(&mut self.params, args.to_vec());
        let heredocs = std::mem::replace(&mut self.heredocs, function.1);
        self.calls += 1;
        let step = self.run(&function.0);
        self.calls -= 1;
        self.params = params;
        self.heredocs = heredocs;
        let (status, flow) = step?;
        Ok((status, if flow == Flow::Exit { Flow::Exit } else { Flow::Go }))
    }

    /// Takes the next line of what the command can read: `None` at its end, `Some(None)` if it is not known.
    pub(crate) fn read_line(&mut self) -> Option<Field> {
        match &mut self.input {
            None => Some(None),
            Some(text) if text.is_empty() => None,
            Some(text) => {
                let end = text.find('\n').map_or(text.len(), |at| at + 1);
                let line: String = text.drain(..end).collect();
                Some(Some(line.trim_end_matches('\n').to_owned()))
            }
        }
    }

    /// Walks a script of the environment that a command calls by its path.
    pub(crate) fn program(&mut self, path: &str, text: &str, args: &[Field]) -> Step {
        if self.calls >= MAX_CALLS {
            return Ok((Status::Maybe, Flow::Go));
        }
        let params = std::mem::replace(&mut self.params, args.to_vec());
        let vars = self.vars.clone();
        let functions = std::mem::take(&mut self.functions);
        // Its lines are not this script's.
        self.calls += 1;
        let before = self.unknown.len();
        let step = self.source(text);
        self.calls -= 1;
        for (_, line) in &mut self.unknown[before..] {
            *line = format!("{path}: {line}");
        }
        (self.params, self.vars, self.functions) = (params, vars, functions);
        Ok((step?.0, Flow::Go))
    }

    /// Reports a command line.
    pub(crate) fn refuse(&mut self, fields: &[Field]) {
        let words: Vec<&str> = fields.iter().map(|f| f.as_deref().unwrap_or("…")).collect();
        let mut text = words.join(" ").replace('\n', " ");
        if text.len() > 200 {
            let cut = (0..=200).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
            text.push('…');
        }
        if !self.unknown.iter().any(|(_, t)| *t == text) {
            self.unknown.push((self.line, text));
        }
    }

    /// Gives a command its here document, or the content of a file.
    fn feed(&mut self, redirects: &[Redirect]) -> Result<(), EnvError> {
        for redirect in redirects {
            match &redirect.kind {
                RedirectKind::Here(index) => {
                    let word = self.heredocs.get(*index).cloned().unwrap_or_default();
                    self.input = self.text(&word)?;
                }
                RedirectKind::Read(word) => {
                    self.input = match self.text(word)? {
                        Some(path) => self.layer.read_text(&path)?,
                        None => None,
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where standard output goes.
    fn sink(&mut self, redirects: &[Redirect]) -> Result<Sink, EnvError> {
        let mut sink = Sink::Same;
        for redirect in redirects {
            let (word, append) = match &redirect.kind {
                RedirectKind::Write(word) => (word, false),
                RedirectKind::Append(word) => (word, true),
                RedirectKind::Duplicate(word) => {
                    let to = self.text(word)?;
                    if redirect.fd.unwrap_or(1) == 1 && to.as_deref() != Some("1") {
                        sink = Sink::Nowhere;
                    }
                    continue;
                }
                _ => continue,
            };
            let path = self.text(word)?;
            let passing = |p: &str| {
                ["/dev/", "/tmp/", "/proc/", "/sys/", "/run/", "/var/run/", "/var/log/"]
                    .iter()
                    .any(|d| p.starts_with(d))
            };
            let to = match path {
                Some(path) if passing(&path) => Sink::Nowhere,
                Some(path) if path.starts_with('/') => Sink::File { path, append },
                _ => Sink::Unknown,
            };
            if redirect.fd.unwrap_or(1) == 1 || to == Sink::Unknown {
                sink = to;
            }
        }
        Ok(sink)
    }

    /// Does what a redirection of the command just walked says, and goes back to the output before.
    fn drain(&mut self, sink: &Sink, before: Field) {
        if *sink == Sink::Same {
            return;
        }
        let printed = std::mem::replace(&mut self.output, before);
        match (sink, printed) {
            (Sink::File { path, append }, Some(text)) => self.write_file(path, &text, *append),
            (Sink::File { path, .. }, None) => self.refuse(&[Some(format!("… > {path}"))]),
            (Sink::Unknown, _) => self.refuse(&[Some("… > …".into())]),
            _ => {}
        }
    }
}

/// Where the output of a command goes.
#[derive(Debug, PartialEq, Eq)]
enum Sink {
    Same,
    Nowhere,
    File { path: String, append: bool },
    Unknown,
}
