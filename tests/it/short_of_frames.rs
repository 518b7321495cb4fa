//! A machine with one frame too few for what it is asked: the answer is yes or no, and comes.

use crate::Scene;

/// A write that makes a file longer holds the page with the old end while it takes the one that it writes to. With a frame less, the page with the end is
/// all that is free: taken and let go again it proves nothing.
#[test]
fn a_file_is_made_longer_or_not_with_any_number_of_frames() {
    let mut answers = (0, 0);
    for taken in 50..72 {
        let mut s = Scene::on("machine memory=80 swap=mem:64");
        s.run("file 1 32768 rw; map 0 0 10 rw priv fixed anon; lock 0 0 10");
        s.run("truncate 1 8202; fread 0 1 0 0 3; pageout *");
        s.run(&format!("squeeze {taken}"));
        match s.machine().files()[0].pwrite(s.machine().cx(), s.machine().db(), 20480, b"long") {
            Ok(_) => answers.0 += 1,
            Err(e) => {
                assert_eq!(e.errno(), page_db::errno::ENOMEM, "{taken}: {e}");
                answers.1 += 1;
            }
        }
        s.end();
    }
    assert!(answers.0 != 0 && answers.1 != 0, "both occur: {answers:?}");
}
