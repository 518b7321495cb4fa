//! What the references describe and is not built: each has its test, which holds that it is refused or that there is no word for it, and its row in the
//! README.

use segvm::script::parse;

/// As the README's rows "Not built" name it, and the tests.
const NOT_BUILT: &[(&str, &[&str])] =
    &[("file times", &["c28"]), ("a debugger's store", &["e19"]), ("large pages", &["m11"])];

/// The script language has no such statement.
#[track_caller]
pub(crate) fn no_word_for(statement: &str) {
    let refused = parse(statement).expect_err("no statement of the language").to_string();
    assert!(refused.contains("unknown statement"), "{refused}");
}

#[test]
fn the_readme_has_a_row_for_what_is_not_built() {
    let readme = include_str!("../../README.md");
    let rows: Vec<_> = readme.lines().filter(|l| l.starts_with("| Not built")).collect();
    let tests = crate::listing::tests();
    for (what, numbers) in NOT_BUILT {
        assert!(rows.iter().any(|row| row.contains(what)), "no row names {what}");
        for number in *numbers {
            let has = |t: &String| t.rsplit("::").next().is_some_and(|n| n.starts_with(number));
            assert!(tests.iter().any(has), "no test {number}");
        }
    }
}
