//! A source file as a flat list of tokens with their lines, and which of its lines are tests.
//!
//! Flat, because the rules look for short patterns; brackets know their mates, so a rule can step
//! over or into a group.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Ident(String),
    Punct(char),
    Literal(String),
    Open(char),
    Close(char),
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
    /// The last line of a token that spans several.
    pub end_line: usize,
    /// For a bracket, the index of the other one; for others, its own.
    pub mate: usize,
}

impl Token {
    pub fn is_ident(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(ident) if ident == name)
    }

    pub fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(ident) => Some(ident),
            _ => None,
        }
    }

    pub fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub fn opens(&self, bracket: char) -> bool {
        self.kind == Kind::Open(bracket)
    }
}

#[derive(Debug)]
pub struct Source {
    /// Relative to the workspace, with slashes.
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    /// The whole file is test code.
    pub is_test: bool,
    /// First and last lines of items that only tests have.
    test_items: Vec<(usize, usize)>,
}

impl Source {
    pub fn parse(path: &str, text: String) -> Result<Self, String> {
        let stream: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let is_test = is_test_path(path);
        let mut source =
            Self { path: path.to_owned(), text, tokens, is_test, test_items: Vec::new() };
        source.test_items = source.find_test_items();
        Ok(source)
    }

    /// The folder of the crate this file belongs to.
    pub fn crate_name(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path)
    }

    pub fn is_test_line(&self, line: usize) -> bool {
        let is_in = |&(first, last): &(usize, usize)| (first..=last).contains(&line);
        self.is_test || self.test_items.iter().any(is_in)
    }

    /// The attributes of the file: index of the bracket that opens each.
    pub fn attributes(&self) -> impl Iterator<Item = usize> {
        let has_hash = |at: &usize| {
            let before = at.checked_sub(1).and_then(|before| self.tokens.get(before));
            let inner = at.checked_sub(2).and_then(|before| self.tokens.get(before));
            before.is_some_and(|token| token.is('#'))
                || (before.is_some_and(|token| token.is('!'))
                    && inner.is_some_and(|token| token.is('#')))
        };
        (0..self.tokens.len()).filter(|at| self.tokens[*at].opens('[')).filter(has_hash)
    }

    /// The index after the item that begins at `at`: behind its body or its semicolon.
    pub fn end_of_item(&self, mut at: usize) -> usize {
        while let Some(token) = self.tokens.get(at) {
            if token.is(';') {
                return at + 1;
            }
            let is_body = token.opens('{');
            at = token.mate.max(at) + 1;
            if is_body {
                return at;
            }
        }
        at
    }

    fn find_test_items(&self) -> Vec<(usize, usize)> {
        let mut items = Vec::new();
        for open in self.attributes() {
            let close = self.tokens[open].mate;
            if !self.is_cfg_test(open, close) || !self.tokens[open - 1].is('#') {
                continue;
            }
            let end = self.end_of_item(self.after_attributes(close + 1));
            let last = self.tokens.get(end.saturating_sub(1)).map_or(usize::MAX, |it| it.end_line);
            items.push((self.tokens[open].line, last));
        }
        items
    }

    fn after_attributes(&self, mut at: usize) -> usize {
        while self.tokens.get(at).is_some_and(|token| token.is('#')) {
            at = self.tokens.get(at + 1).map_or(at, |open| open.mate) + 1;
        }
        at
    }

    /// `cfg(test)`, `cfg(all(test, ...))`; not `cfg(not(test))`.
    fn is_cfg_test(&self, open: usize, close: usize) -> bool {
        let tokens = &self.tokens[open + 1..close];
        if !tokens.first().is_some_and(|token| token.is_ident("cfg")) {
            return false;
        }
        tokens.iter().enumerate().any(|(at, token)| {
            let is_negated = at >= 2 && tokens[at - 2].is_ident("not");
            token.is_ident("test") && !is_negated
        })
    }

    /// Names of modules in other files that only tests have.
    fn test_modules(&self) -> Vec<String> {
        let mut modules = Vec::new();
        for window in self.tokens.windows(3) {
            let [module, name, end] = window else { continue };
            let is_declaration = module.is_ident("mod") && end.is(';');
            if let (true, Some(name)) = (is_declaration, name.ident())
                && self.is_test_line(module.line)
            {
                modules.push(self.child_module(name));
            }
        }
        modules
    }

    /// The path of a child module, without `.rs`.
    fn child_module(&self, name: &str) -> String {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        match file {
            "lib.rs" | "main.rs" | "mod.rs" => format!("{dir}/{name}"),
            _ => format!("{dir}/{}/{name}", file.trim_end_matches(".rs")),
        }
    }
}

/// Marks files that are modules of tests only.
pub fn mark_test_modules(sources: &mut [Source]) {
    let modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        let path = source.path.trim_end_matches(".rs");
        let is_in = |module: &String| {
            path.strip_prefix(module.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        source.is_test |= modules.iter().any(is_in);
    }
}

/// Tests, benchmarks and fuzz targets by where they lie.
fn is_test_path(path: &str) -> bool {
    let is_dir = |part: &str| ["tests", "benches", "examples", "fuzz"].contains(&part);
    path.ends_with("/tests.rs") || path.split('/').any(is_dir)
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let (line, end_line) = (tree.span().start().line, tree.span().end().line);
        let mate = tokens.len();
        let kind = match tree {
            TokenTree::Ident(ident) => Kind::Ident(ident.to_string()),
            TokenTree::Punct(punct) => Kind::Punct(punct.as_char()),
            TokenTree::Literal(literal) => Kind::Literal(literal.to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ('(', ')'),
                    Delimiter::Brace => ('{', '}'),
                    Delimiter::Bracket => ('[', ']'),
                    Delimiter::None => (' ', ' '),
                };
                tokens.push(Token { kind: Kind::Open(open), line, end_line: line, mate });
                flatten(group.stream(), tokens);
                let close_at = tokens.len();
                let kind = Kind::Close(close);
                tokens[mate].mate = close_at;
                tokens.push(Token { kind, line: end_line, end_line, mate });
                continue;
            }
        };
        tokens.push(Token { kind, line, end_line, mate });
    }
}
