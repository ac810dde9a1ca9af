//! Turns of phrase that the project's comments, messages and documents do without, found by program.
//!
//! A program sees only the certain cases; that prose reads well is for people to judge. Each rule says what to write instead.

use std::collections::BTreeSet;
use std::fs;

use super::source::files;
use super::{assert_none, root};

/// What is wrong, and what to write instead.
struct Rule {
    advice: &'static str,
    /// Whether the phrase begins at this token of a passage.
    begins_at: fn(&[Token], usize) -> bool,
}

const RULES: [Rule; 4] = [
    Rule {
        advice: "a sentence begins with *who*: name the person, or say *to …*",
        begins_at: is_headless_who,
    },
    Rule { advice: "*is no …* or *is none*: write *is not a …*", begins_at: is_no },
    Rule { advice: "*nobody minds*, *somebody asked*: say what happens", begins_at: has_vague_person },
    Rule { advice: "*cannot be had*: say what failed", begins_at: is_be_had },
];

const BARE_ERRORS: &str =
    "`# Errors` without content: name the variants, or what the caller can do about each";

/// A word, a span of code, or a mark of punctuation.
struct Token {
    text: String,
    /// Counted from 1.
    line: usize,
}

/// What is read as one text: a paragraph, a heading, an item of a list, or a string literal.
type Passage = Vec<Token>;

#[test]
fn comments_messages_and_documents_read_as_english() {
    let mut wrong = BTreeSet::new();
    let folders = ["vmm", "cloner", "guest-images", "tests", "benches"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| files(folder, &["rs", "md"]));
    for path in files.chain([root().join("README.md")]) {
        // It quotes what it looks for.
        if path.ends_with("tests/architecture/prose.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let passages = if is_rust { passages_of_rust(&text) } else { passages_of_text(&text) };
        let path = path.strip_prefix(root()).unwrap().display();
        wrong
            .extend(findings(&passages).into_iter().map(|(line, advice)| format!("{path}:{line}: {advice}")));
    }
    assert_none("prose", &wrong);
}

/// All that the rules find, with the line on which each begins.
fn findings(passages: &[Passage]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for passage in passages {
        for (at, token) in passage.iter().enumerate() {
            let rules = RULES.iter().filter(|rule| (rule.begins_at)(passage, at));
            found.extend(rules.map(|rule| (token.line, rule.advice)));
        }
    }
    for pair in passages.windows(2) {
        if is(&pair[0], &["#", "errors"]) && is_bare(&pair[1]) {
            found.push((pair[1][0].line, BARE_ERRORS));
        }
    }
    found
}

fn is(passage: &[Token], words: &[&str]) -> bool {
    passage.len() == words.len()
        && passage.iter().zip(words).all(|(token, word)| token.text.eq_ignore_ascii_case(word))
}

/// *Who minds lets it arrive first*, and *whoever* anywhere. A question may begin with *who*.
fn is_headless_who(passage: &[Token], at: usize) -> bool {
    let begins_sentence = at == 0 || ends_sentence(&passage[at - 1]);
    let is_question = || {
        let end = passage[at..].iter().find(|token| ends_sentence(token));
        end.is_some_and(|end| end.text == "?")
    };
    match word(passage, at).as_str() {
        "whoever" => true,
        "who" => begins_sentence && !is_question(),
        _ => false,
    }
}

/// What may follow *is no*, even without *than*.
const COMPARATIVES: [&str; 10] =
    ["longer", "more", "less", "fewer", "different", "better", "worse", "easier", "faster", "slower"];

/// *It is no whole chunk*, *it is none*. Right are *there is no page*, *is no longer*, and *is no larger than*.
fn is_no(passage: &[Token], at: usize) -> bool {
    if !["is", "are", "was", "were", "be", "been"].contains(&word(passage, at).as_str()) {
        return false;
    }
    let start = at.saturating_sub(4);
    let clause = passage[start..at].iter().rev().take_while(|token| !is_mark(token));
    let has_there = clause.chain(passage.get(at + 1)).any(|token| token.text.eq_ignore_ascii_case("there"));
    let compares =
        || COMPARATIVES.contains(&word(passage, at + 2).as_str()) || word(passage, at + 3) == "than";
    let noun_follows = || passage.get(at + 2).is_some_and(|token| !is_mark(token));
    match passage.get(at + 1).map(|token| token.text.as_str()) {
        Some("no") => !has_there && noun_follows() && !compares(),
        Some("none") => !has_there,
        _ => false,
    }
}

/// *If the caller is gone, nobody minds*. Right is *a number that nobody can guess*.
fn has_vague_person(passage: &[Token], at: usize) -> bool {
    let verbs = ["ask", "care", "listen", "look", "mind", "need", "wait", "want"];
    let verb = word(passage, at + 1);
    ["nobody", "somebody", "someone"].contains(&word(passage, at).as_str())
        && verbs
            .iter()
            .any(|stem| verb.strip_prefix(stem).is_some_and(|ending| ["", "s", "d", "ed"].contains(&ending)))
}

/// *A counter that cannot be had*.
fn is_be_had(passage: &[Token], at: usize) -> bool {
    word(passage, at) == "be" && word(passage, at + 1) == "had"
}

/// *The kernel's.*, *See [`Error`].*
fn is_bare(passage: &[Token]) -> bool {
    let words = match passage {
        [words @ .., last] if last.text == "." => words,
        words => words,
    };
    is(words, &["the", "kernel's"])
        || matches!(words, [see, open, _, close] if see.text == "See" && open.text == "[" && close.text == "]")
}

/// The word at this place in small letters; empty if there is none.
fn word(passage: &[Token], at: usize) -> String {
    passage.get(at).map(|token| token.text.to_lowercase()).unwrap_or_default()
}

fn is_mark(token: &Token) -> bool {
    let mut characters = token.text.chars();
    let is_letter = characters.next().is_some_and(char::is_alphanumeric);
    !is_letter && characters.next().is_none()
}

fn ends_sentence(token: &Token) -> bool {
    [".", ";", "!", "?", "|"].contains(&token.text.as_str())
}

/// Puts lines together to passages.
#[derive(Default)]
struct Reader {
    done: Vec<Passage>,
    current: Passage,
}

impl Reader {
    fn end_passage(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn line(&mut self, line: usize, text: &str) {
        let text = text.trim();
        let is_heading = text.starts_with('#');
        let is_item = ["* ", "- ", "|", "```"].iter().any(|mark| text.starts_with(mark));
        if text.is_empty() || is_heading || is_item {
            self.end_passage();
        }
        self.current.extend(tokens(text).map(|text| Token { text: text.to_owned(), line }));
        if is_heading {
            self.end_passage();
        }
    }

    fn finish(mut self) -> Vec<Passage> {
        self.end_passage();
        self.done
    }
}

/// Words, spans of code, placeholders, and single marks of punctuation.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start_matches(['*', '-', ' ']);
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let span = |close| rest[1..].find(close).map(|at| at + 2);
        let word_bytes =
            rest.find(|c: char| !c.is_alphanumeric() && !"'’_".contains(c)).unwrap_or(rest.len());
        let len_bytes = match first {
            '`' => span('`'),
            '{' => span('}'),
            _ => Some(word_bytes).filter(|bytes| *bytes > 0),
        };
        let (token, after) = rest.split_at(len_bytes.unwrap_or(first.len_utf8()));
        rest = after;
        Some(token)
    })
}

fn passages_of_text(text: &str) -> Vec<Passage> {
    let mut reader = Reader::default();
    for (line, text) in (1..).zip(text.lines()) {
        reader.line(line, text);
    }
    reader.finish()
}

/// The comments and string literals of a file of Rust. Lines of comments that follow each other are one text.
fn passages_of_rust(source: &str) -> Vec<Passage> {
    let mut reader = Reader::default();
    let mut last_comment = 0;
    let (mut at, mut line) = (0, 1);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let len_bytes = if rest.starts_with("//") {
            let comment = rest.lines().next().unwrap_or_default();
            if last_comment + 1 != line {
                reader.end_passage();
            }
            last_comment = line;
            reader.line(line, comment.trim_start_matches(['/', '!']));
            comment.len()
        } else if let Some((hashes, len_bytes)) = raw_string(rest) {
            string(&mut reader, line, &rest[hashes + 2..len_bytes - hashes - 1]);
            len_bytes
        } else if first == '"' {
            let len_bytes = quoted(rest, '"');
            string(&mut reader, line, &rest[1..len_bytes - 1]);
            len_bytes
        } else if first == '\'' {
            // Otherwise it begins a lifetime.
            let is_char = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
            if is_char { quoted(rest, '\'') } else { 1 }
        } else {
            first.len_utf8()
        };
        line += rest[..len_bytes].matches('\n').count();
        at += len_bytes;
    }
    reader.finish()
}

fn string(reader: &mut Reader, line: usize, text: &str) {
    reader.end_passage();
    for (line, text) in (line..).zip(text.lines()) {
        // Escapes are no letters, and a line that ends with one goes on in the next.
        reader.line(line, &text.replace("\\n", " ").replace("\\t", " ").replace('\\', " "));
    }
    reader.end_passage();
}

/// Length in bytes of a literal that begins with a quotation mark, including both of its marks.
fn quoted(rest: &str, mark: char) -> usize {
    let mut is_escaped = false;
    let end = rest[1..].find(|c| {
        let is_end = c == mark && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.unwrap_or_else(|| panic!("unfinished literal: {rest:.40}")) + 2
}

/// Number of hashes and length in bytes of the raw string that `rest` begins with, from its `r` on.
fn raw_string(rest: &str) -> Option<(usize, usize)> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let text = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some((hashes, hashes + 2 + text.find(&end)? + end.len()))
}

#[test]
fn bad_english_is_found_and_good_english_is_not() {
    let advice = |text: &str| -> Vec<&str> {
        findings(&passages_of_text(text)).into_iter().map(|(_, advice)| advice).collect()
    };
    let [who, no, person, had] = RULES.map(|rule| rule.advice);
    for (text, rule) in [
        ("Who minds lets it arrive before the pause.", who),
        ("It is there first. Who wants more asks for it.", who),
        ("Given to whoever comes first.", who),
        ("| key | who holds it decides |", who),
        ("{} is no whole chunk", no),
        ("{path} is no flush folder", no),
        ("These are no pages of a guest.", no),
        ("A chunk of zeros must be no marker.", no),
        ("Its parent, if there were one, is none.", no),
        ("The file is\nno snapshot.", no),
        ("If the caller is gone, nobody minds.", person),
        ("Only if somebody asked for it.", person),
        ("A counter that cannot be had.", had),
        ("# Errors\nThe kernel's.", BARE_ERRORS),
        ("# Errors\nSee [`Error`].\n\nMore.", BARE_ERRORS),
    ] {
        assert_eq!(advice(text), [rule], "{text}");
    }
    for text in [
        "There is no page 7, and there are none after it.",
        "Whether there can be no other, or there really is none.",
        "It is not a chunk, is no longer one, is no larger than one, and is no easier to read.",
        "The answer is no.",
        "A user who may open it is told who it is.",
        "Who goes there?",
        "A number that nobody can guess, and that is promised to nobody.",
        "It had to be `is none` or `whoever`.",
        "# Errors\nThe kernel's reason for refusing it.",
        "# Errors\nSee [`Error`] for what each means to a caller.",
        "# Errors\nAs for [`open`].",
    ] {
        assert_eq!(advice(text), [""; 0], "{text}");
    }
}

#[test]
fn comments_and_strings_are_read_and_code_is_not() {
    let lines = |source: &str| -> Vec<usize> {
        findings(&passages_of_rust(source)).into_iter().map(|(line, _)| line).collect()
    };
    for (source, found) in [
        ("fn is_no() {}\n// It is no chunk.", vec![2]),
        ("/// It is\n/// no chunk.\nstruct Chunk;", vec![1]),
        ("//! # Errors\n//! The kernel's.\n", vec![2]),
        ("// It is\n\n// no chunk: two comments.", vec![]),
        ("let quote = '\"'; // It is no 'chunk'.", vec![1]),
        ("let quote = '\\''; let text: &'static str = \"\\\"it\\\" is no chunk\";", vec![1]),
        ("let text = \"this is \\\n    no chunk\";", vec![1]),
        ("let text = r#\"a \" and\nit is no chunk\"#; // is none", vec![2, 2]),
        ("let text = \"is\"; let more = \"no chunk\";", vec![]),
        ("who.is(nobody); /// fine", vec![]),
    ] {
        assert_eq!(lines(source), found, "{source}");
    }
}
