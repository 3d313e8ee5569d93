//! Outside text as Markdown. Its paragraphs, lists and code are kept, all other marks are escaped, and fences are
//! longer than any inside.

use std::fmt::Write as _;

use super::prose::{Block, Span, blocks, spans};

/// A text of any length, with a line break at the end.
pub(super) fn prose(text: &str) -> String {
    let broken = |lines: &[&str]| {
        lines.iter().map(|text| line(text)).collect::<Vec<_>>().join("\\\n") + "\n"
    };
    let told = blocks(text).into_iter().map(|block| match block {
        Block::Paragraph(paragraph) => broken(&paragraph),
        Block::Code(code) => fence(&code.join("\n"), ""),
        Block::List(None, items) => {
            items.iter().map(|item| prefixed("- ", "  ", &broken(item))).collect::<String>()
        }
        Block::List(Some(first), items) => (first..)
            .zip(&items)
            .map(|(number, item)| prefixed(&format!("{number}. "), "     ", &broken(item)))
            .collect(),
    });
    told.collect::<Vec<_>>().join("\n")
}

/// A label and its text, on one line if the text is one paragraph.
pub(super) fn labelled(label: &str, text: &str) -> String {
    match blocks(text).as_slice() {
        [] => format!("{label}\n"),
        [Block::Paragraph(_)] => format!("{label} {}", prose(text)),
        _ => format!("{label}\n\n{}", prose(text)),
    }
}

/// A line of escaped text and code.
pub(super) fn line(text: &str) -> String {
    let text = text.split(['\n', '\r']).collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    for span in spans(text.trim()) {
        match span {
            Span::Code(inner) => {
                let _ = write!(out, "`{inner}`");
            }
            Span::Strong => out.push_str("**"),
            Span::Text(text) => {
                let at_start = out.is_empty();
                escape(text, at_start, &mut out);
            }
        }
    }
    out
}

fn escape(text: &str, at_start: bool, out: &mut String) {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let after = chars.peek().map_or(' ', |&(_, c)| c);
        match c {
            '<' => out.push_str("&lt;"),
            '&' if after == '#' || after.is_alphanumeric() => out.push_str("&amp;"),
            '_' if before.is_alphanumeric() && after.is_alphanumeric() => out.push('_'),
            '\\' | '`' | '*' | '_' | '[' | '|' | '~' => out.extend(['\\', c]),
            '#' | '>' | '-' | '+' | '=' if at_start && at == 0 => out.extend(['\\', c]),
            '.' | ')' if at_start && digits > 0 && at == digits && after == ' ' => {
                out.extend(['\\', c]);
            }
            _ => out.push(c),
        }
        before = c;
    }
}

/// A text for a table cell, where a pipe would end code too.
pub(super) fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    escape(&text, false, &mut out);
    out
}

/// Code within a line, between marks longer than any inside.
pub(super) fn code(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return text;
    }
    let marks = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{marks}{pad}{text}{pad}{marks}")
}

pub(super) fn fence(text: &str, language: &str) -> String {
    let marks = "`".repeat((longest_run(text) + 1).max(3));
    format!("{marks}{language}\n{}\n{marks}\n", text.trim_end())
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

pub(super) fn quoted(text: &str) -> String {
    prefixed("> ", "> ", text)
}

/// The text with one mark before the first line and another before the others.
pub(super) fn prefixed(first: &str, rest: &str, text: &str) -> String {
    let lines = text.trim_end().lines().enumerate();
    let lines = lines.map(|(at, line)| {
        format!("{}{line}", if at == 0 { first } else { rest }).trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected, "{text}");
        check("# no heading", r"\# no heading");
        check("<b>&lt; & *x* [a](b) ![c](d)", r"&lt;b>&amp;lt; & \*x\* \[a](b) !\[c](d)");
        check("12. no item", r"12\. no item");
        check("--- | a_b _c_ ~~d~~", r"\--- \| a_b \_c\_ \~\~d\~\~");
        check("`<b>|` and ``` and `", r"`<b>|` and \`\`\` and \`");
        check("two\nlines", "two lines");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(fence("```\nx\n````", "rs"), "`````rs\n```\nx\n````\n`````\n");
    }

    #[test]
    fn code_after_a_label_has_its_own_lines() {
        assert_eq!(labelled("**Fails:**", "```\n# x\n```"), "**Fails:**\n\n```\n# x\n```\n");
        assert_eq!(labelled("**Fails:**", "```\n# x"), "**Fails:** \\`\\`\\`\\\n\\# x\n");
        assert_eq!(prefixed("- ", "  ", "a\n\nb\n"), "- a\n\n  b\n");
    }
}
