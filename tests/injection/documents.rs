//! What is made of a hostile thread to be read or kept stays data: the page, the Markdown, the text in
//! a terminal.

use pulldown_cmark::{Event, Options, Parser, Tag};

use super::shows_all;
use crate::support::world::{Ran, World};

/// All that can be made of this thread.
#[track_caller]
pub(super) fn check(world: &World, thread: &str) {
    let export = |format: &str| {
        let ran = world.run(&["threads", "export", thread, "--format", format]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout
    };
    page(&export("html"));
    markdown(&export("md"));
    // As in a terminal, which is given colours.
    let colour = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    for args in [["threads", "show", thread].as_slice(), &["threads"]] {
        let mut command = world.bridge(args);
        let ran = Ran::from(command.env("CLICOLOR_FORCE", "1").output().unwrap());
        assert!(ran.code == Some(0) && colour.is_match(&ran.stdout), "{ran:?}");
        shows_all(&colour.replace_all(&ran.stdout, ""));
    }
}

/// The elements that a page is made of.
const ELEMENTS: &str = "html head body main header footer section article figure figcaption details summary \
    table thead tbody tr th td h1 h2 h3 h4 p ul ol li dl dt dd div span pre code strong small blockquote br a";

/// Every tag of a page is one that the template or the prose writes, with the attributes that they
/// write: text from outside made none.
#[track_caller]
fn page(page: &str) {
    let tag = regex::Regex::new(r"<(/?[a-zA-Z!][^\s>/]*)([^>]*)>").unwrap();
    let attributes = regex::Regex::new(
        r#"^(?:\s(?:class|id|dir|start|scope|title|style|aria-[a-z]+)="[^"<>]*"|\shref="\#F\d+")*$"#,
    )
    .unwrap();
    let body = page.split_once("</style>").unwrap().1;
    for found in tag.captures_iter(body) {
        let name = found[1].trim_start_matches('/');
        assert!(ELEMENTS.split_whitespace().any(|own| own == name), "{}", &found[0]);
        assert!(attributes.is_match(&found[2]), "{}", &found[0]);
    }
    shows_all(body);
}

/// Markdown, read as the sites do that show it: no markup, no image, no link but those that are bare
/// addresses in the text.
#[track_caller]
fn markdown(text: &str) {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    for event in Parser::new_ext(text, options) {
        let markup = match &event {
            Event::Html(_) | Event::InlineHtml(_) | Event::FootnoteReference(_) => true,
            Event::Start(tag) => matches!(
                tag,
                Tag::Link { .. }
                    | Tag::Image { .. }
                    | Tag::HtmlBlock
                    | Tag::MetadataBlock(_)
                    | Tag::FootnoteDefinition(_)
            ),
            _ => false,
        };
        assert!(!markup, "{event:?} in\n{text}");
    }
    shows_all(text);
}
