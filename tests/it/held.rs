//! Memory that others have too, in the words of scripts: devices that pin it, and frames that go bad.

use crate::run_ok;

#[test]
fn a_device_sees_what_is_stored_in_what_it_has_pinned() {
    run_ok(
        "map 0 0 4 rw priv fixed anon; write 0 0 4 1
         pin 0 1 2 w; expect ok n=1
         fork 0 1; write 0 1 0+1 65; write 1 1 0+1 66; pageout *
         pinned 1; expect ok b=41
         read 1 1 0+1; expect ok b=42
         unpin 1; expect ok; unpin 1; expect EINVAL; pinned 1; expect EINVAL; unpin 0; expect EINVAL
         pin 0 3 2 r; expect EFAULT; pin 0 0+1 1 r; expect EINVAL; pin 0 0 0 r; expect EINVAL
         protect 0 0 1 r; pin 0 0 1 w; expect EACCES; pin 0 0 1 r; expect ok n=2",
    );
}

#[test]
fn whoever_waits_for_a_device_stops_it() {
    run_ok(
        "file 0 8192; pwrite 0 4096 1 67
         map 0 0 2 rw priv fixed anon; map 0 4 2 r shared fixed file 0 0
         pin 0 0 2 w; unmap 0 1 1; expect ok; unpin 1; expect EINVAL
         pin 0 0 1 w; protect 0 0 1 r; expect ok; unpin 2; expect EINVAL
         pin 0 5 1 r; pinned 3; expect ok b=43
         pin 0 0 1 r
         truncate 0 4096; expect ok; unpin 3; expect EINVAL
         unpin 4; expect ok
         fork 0 1; pin 1 0 1 r; exit 1; expect ok; unpin 5; expect EINVAL
         pin 0 0 1 r; map 0 0 1 rw priv fixed anon; expect ok; pinned 6; expect EINVAL",
    );
}

#[test]
fn what_a_device_has_behind_a_watch_is_not_known() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; watch 0 0 0+1 r
         pin 0 0 1 r; expect ok n=1; pinned 1; expect ENOTSUP; unpin 1; expect ok
         pin 0 1 1 r; watch 0 1 0+1 w; expect EAGAIN; unpin 2; watch 0 1 0+1 w; expect ok",
    );
}

#[test]
fn a_frame_that_goes_bad_is_out_of_service_when_its_bytes_are_elsewhere() {
    run_ok(
        "file 0 8192; pwrite 0 0 1 65; sync 0 0 1 sync
         map 0 0 1 rw priv fixed anon; write 0 0 0+1 66
         retire 0 8; expect EFAULT
         retire 0 0; expect EAGAIN; retire 0 0; expect EIO; unretire; expect ok n=0
         read 0 0 0+1; expect ok b=42
         pageout *; read 0 0 0+1; expect ok b=42
         unretire; expect ok n=1; unretire; expect ok n=0
         map 0 4 1 r shared fixed file 0 0; read 0 4 0+1; pageout *; read 0 4 0+1
         retire 0 4; expect ok; read 0 4 0+1; expect ok b=41
         unretire; expect ok n=1",
    );
}
