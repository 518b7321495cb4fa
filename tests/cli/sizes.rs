//! `segvm sizes`: exact counts, so gates.

use super::{ended, json_lines, segvm};

/// Row 20 of the benchmark: what may not grow.
#[test]
fn a_page_and_a_segment_cost_no_more_than_their_gates() {
    let output = segvm(&["sizes", "--json"], "");
    let sizes = json_lines(ended(&output, 0).0).remove(0);
    let figure = |name: &str| sizes[name].as_f64().unwrap_or(f64::NAN);
    let page = figure("frame") + figure("heap") + figure("tables");
    assert!((88.0..=104.0).contains(&page), "per resident private anonymous page: {sizes}");
    // A debug build keeps the rank in each lock: of the segment, and of its anon map.
    let gate = if cfg!(debug_assertions) { 288.0 + 16.0 } else { 288.0 };
    assert!((100.0..=gate).contains(&figure("segment")), "per touched segment: {sizes}");
    assert!(figure("untouched") <= figure("segment") + 4.0 * 64.0, "{sizes}");
    let page_t = sizes["structures"][0].clone();
    assert_eq!((page_t["name"].as_str(), page_t["bytes"].as_u64()), (Some("page_t"), Some(64)));
}

#[test]
fn the_table_names_illumos_and_linux_beside_ours() {
    let output = segvm(&["sizes"], "");
    let (out, _) = ended(&output, 0);
    let heads: Vec<_> = out.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heads, ["BYTES", "OF", "METADATA", "SEGVM", "ILLUMOS", "LINUX"], "{out}");
    let page = out.lines().find(|l| l.starts_with("per resident")).unwrap_or_default();
    assert!(page.ends_with("188       72"), "{out}");
}
