//! The part of the shell's grammar that maintainer scripts use.

use std::rc::Rc;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text as it stands; `quoted` text is neither split nor matched against file names.
    Literal {
        /// The text, quotes and backslashes removed.
        text: String,
        /// Whether it stood in quotes.
        quoted: bool,
    },
    /// `$name`, `${name}` or `${name<op>word}`.
    Parameter {
        /// Name, digit or special sign.
        name: String,
        /// `:-`, `%%`, `#` … with what follows; `len` for `${#name}`.
        op: Option<(&'static str, Word)>,
        /// Whether it stood in double quotes.
        quoted: bool,
    },
    /// `$(…)` or backquotes.
    Command {
        /// What runs.
        body: Rc<Node>,
        /// Whether it stood in double quotes.
        quoted: bool,
    },
    /// `$((…))`; never evaluated.
    Arithmetic,
}

/// A word before expansion.
pub type Word = Vec<Part>;

/// Where a command's input or output goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// The descriptor, if it was written.
    pub fd: Option<u32>,
    /// What happens to it.
    pub kind: RedirectKind,
}

/// Kinds of redirection.
#[derive(Debug, Clone, PartialEq)]
pub enum RedirectKind {
    /// `> word`, `>| word`.
    Write(Word),
    /// `>> word`.
    Append(Word),
    /// `< word`, `<> word`.
    Read(Word),
    /// `>& word`, `<& word`.
    Duplicate(Word),
    /// `<<end`: index into [`Script::heredocs`].
    Here(usize),
}

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Assignments, words, redirections.
    Simple {
        /// `name=word` before the command.
        assigns: Vec<(String, Word)>,
        /// The command and its arguments.
        words: Vec<Word>,
        /// Its redirections.
        redirects: Vec<Redirect>,
        /// Line in the script, from 1.
        line: u32,
    },
    /// `a | b`.
    Pipe(Vec<Node>),
    /// `! a`.
    Not(Box<Node>),
    /// `a && b`.
    And(Box<Node>, Box<Node>),
    /// `a || b`.
    Or(Box<Node>, Box<Node>),
    /// `a; b`.
    List(Vec<Node>),
    /// `if`, `elif`, `else`.
    If {
        /// Conditions and bodies.
        arms: Vec<(Node, Node)>,
        /// The `else`.
        otherwise: Option<Box<Node>>,
    },
    /// `for name in words`.
    For {
        /// The variable.
        name: String,
        /// What it takes; `"$@"` if not said.
        words: Option<Vec<Word>>,
        /// The body.
        body: Box<Node>,
    },
    /// `while` or `until`.
    While {
        /// The condition.
        condition: Box<Node>,
        /// The body.
        body: Box<Node>,
    },
    /// `case word in`.
    Case {
        /// What is matched.
        word: Word,
        /// Patterns and bodies.
        arms: Vec<(Vec<Word>, Node)>,
    },
    /// `name() body`.
    Function {
        /// The name.
        name: String,
        /// The body.
        body: Rc<Node>,
    },
    /// `( … )`.
    Subshell(Box<Node>),
    /// A compound command with redirections.
    Redirected(Box<Node>, Vec<Redirect>),
}

/// A whole script.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// What it does.
    pub body: Node,
    /// Bodies of here documents.
    pub heredocs: Vec<Word>,
}
