//! Scripts inside Markdown.

/// The fenced blocks of a Markdown text that are marked `script`: the line number of each block's
/// first line (from 1), and its text.
pub fn script_blocks(markdown: &str) -> Vec<(u32, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(u32, String)> = None;
    let mut foreign = false;
    for (number, line) in (1..).zip(markdown.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, Some(_)) if foreign => foreign = false,
            (None, Some(info)) if info.trim() == "script" => {
                open = Some((number + 1, String::new()))
            }
            (None, Some(_)) => foreign = true,
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_script_blocks_are_found() {
        let text = "a\n```script\nverify\n```\n```text\n```\n```script\nx\ny\n```\n```script\nopen";
        assert_eq!(script_blocks(text), [(3, "verify\n".into()), (8, "x\ny\n".into())]);
    }
}
