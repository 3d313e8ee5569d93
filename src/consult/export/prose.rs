//! A parser for the structure of outside text: paragraphs, lists, fenced code, and code within a line. Everything else
//! is plain text; each document renders it in its own way.

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block<'a> {
    /// Adjacent lines.
    Paragraph(Vec<&'a str>),
    /// The items, each with its lines, and the first number of a numbered list.
    List(Option<u32>, Vec<Vec<&'a str>>),
    /// The lines between two fences.
    Code(Vec<&'a str>),
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span<'a> {
    /// Text.
    Text(&'a str),
    /// The text between two single backticks.
    Code(&'a str),
    /// The beginning or the end of strong text; always in pairs.
    Strong,
}

/// The blocks of a text.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let mut blocks = Vec::new();
    // True if the next line begins a new block in any case.
    let mut apart = true;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        at += 1;
        if line.is_empty() {
            apart = true;
            continue;
        }
        if let Some(length) = closing_fence(line, &lines[at..]) {
            blocks.push(Block::Code(lines[at..at + length].to_vec()));
            at += length + 1;
            apart = true;
            continue;
        }
        match (item(line), blocks.last_mut()) {
            (Some((Some(_), text)), Some(Block::List(Some(_), items)))
            | (Some((None, text)), Some(Block::List(None, items))) => items.push(vec![text]),
            (Some((number, text)), _) => blocks.push(Block::List(number, vec![vec![text]])),
            (None, Some(Block::Paragraph(lines))) if !apart => lines.push(line),
            (None, Some(Block::List(_, items))) if !apart => {
                if let Some(lines) = items.last_mut() {
                    lines.push(line);
                }
            }
            (None, _) => blocks.push(Block::Paragraph(vec![line])),
        }
        apart = false;
    }
    blocks
}

/// The number of lines before the fence that closes the one in `line`.
fn closing_fence(line: &str, rest: &[&str]) -> Option<usize> {
    let mark = line.chars().next().filter(|&c| c == '`' || c == '~')?;
    let width = line.chars().take_while(|&c| c == mark).count();
    if width < 3 || line[width..].contains(mark) {
        return None;
    }
    rest.iter().position(|line| {
        let line = line.trim();
        line.len() >= width && line.chars().all(|c| c == mark)
    })
}

/// The number and the text of a list item.
fn item(line: &str) -> Option<(Option<u32>, &str)> {
    let (mark, text) = line.split_once(' ')?;
    let text = text.trim();
    if text.is_empty() || text.chars().all(|c| matches!(c, '-' | '*' | '_' | '+' | ' ')) {
        return None;
    }
    if matches!(mark, "-" | "*" | "+" | "•") {
        return Some((None, text));
    }
    let digits = mark.strip_suffix('.').or_else(|| mark.strip_suffix(')'))?;
    let number = if digits.len() <= 3 { digits.parse().ok() } else { None };
    number.map(|number| (Some(number), text))
}

/// The spans of one line. Longer runs of backticks, and marks without a partner, are text.
pub(super) fn spans(line: &str) -> Vec<Span<'_>> {
    let ticks: Vec<usize> = line.match_indices('`').map(|(at, _)| at).collect();
    let single = |at: &usize| !line[..*at].ends_with('`') && !line[at + 1..].starts_with('`');
    let single: Vec<usize> = ticks.into_iter().filter(single).collect();
    let mut spans = Vec::new();
    let mut from = 0;
    for pair in single.chunks_exact(2) {
        let code = &line[pair[0] + 1..pair[1]];
        // Runs inside would need longer marks around them.
        if code.trim().is_empty() || code.contains('`') {
            continue;
        }
        if from < pair[0] {
            split_strong(&line[from..pair[0]], &mut spans);
        }
        spans.push(Span::Code(code));
        from = pair[1] + 1;
    }
    if from < line.len() {
        split_strong(&line[from..], &mut spans);
    }
    pair_strong(&mut spans);
    spans
}

fn split_strong<'a>(text: &'a str, spans: &mut Vec<Span<'a>>) {
    for (at, part) in text.split("**").enumerate() {
        if at > 0 {
            spans.push(Span::Strong);
        }
        if !part.is_empty() {
            spans.push(Span::Text(part));
        }
    }
}

/// Turns marks without a partner into text.
fn pair_strong(spans: &mut [Span<'_>]) {
    let is_text = |span: Option<&Span<'_>>, fits: fn(&str) -> bool| match span {
        Some(Span::Text(text)) => fits(text),
        Some(Span::Code(_)) => true,
        Some(Span::Strong) | None => false,
    };
    let mut open = None;
    for at in 0..spans.len() {
        if spans[at] != Span::Strong {
            continue;
        }
        let opens = is_text(spans.get(at + 1), |text| !text.starts_with(char::is_whitespace));
        let before = at.checked_sub(1).map(|before| &spans[before]);
        let closes = is_text(before, |text| !text.ends_with(char::is_whitespace));
        match open {
            Some(_) if closes => open = None,
            None if opens => open = Some(at),
            _ => spans[at] = Span::Text("**"),
        }
    }
    if let Some(at) = open {
        spans[at] = Span::Text("**");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_into_blocks() {
        let text = "one\ntwo\n\n- a\n  more\n* b\n\n3. c\n\n```rust\nlet x = `y`;\n```\nend\n- - -\n# no heading\n```\nunclosed";
        assert_eq!(
            blocks(text),
            [
                Block::Paragraph(vec!["one", "two"]),
                Block::List(None, vec![vec!["a", "more"], vec!["b"]]),
                Block::List(Some(3), vec![vec!["c"]]),
                Block::Code(vec!["let x = `y`;"]),
                Block::Paragraph(vec!["end", "- - -", "# no heading", "```", "unclosed"]),
            ]
        );
        assert_eq!(blocks(" \n"), []);
    }

    #[test]
    fn a_line_is_split_into_spans() {
        let check = |line, expected: &[Span<'_>]| assert_eq!(spans(line), expected, "{line}");
        check("`add` drops `a|b`", &[Span::Code("add"), Span::Text(" drops "), Span::Code("a|b")]);
        check("a ``` b", &[Span::Text("a ``` b")]);
        check("odd ` one", &[Span::Text("odd ` one")]);
        check("中`文`", &[Span::Text("中"), Span::Code("文")]);
        check(
            "**a `b`** c ** d **e",
            &[
                Span::Strong,
                Span::Text("a "),
                Span::Code("b"),
                Span::Strong,
                Span::Text(" c "),
                Span::Text("**"),
                Span::Text(" d "),
                Span::Text("**"),
                Span::Text("e"),
            ],
        );
        check("` `", &[Span::Text("` `")]);
        check("", &[]);
    }
}
