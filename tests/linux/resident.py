"""Runs the oracle's programs in one process, a command line after the other: an interpreter takes longer to start than most of them to run.

A request is a line, its words parted by tabs: a program's name and its arguments. The answer is what the program printed, after a line with its
length in bytes.
"""
import contextlib
import importlib
import io
import sys

sys.path.insert(0, sys.argv[1])
while line := sys.stdin.readline():
    name, *arguments = line.rstrip("\n").split("\t")
    printed = io.StringIO()
    sys.argv = [name, *arguments]
    with contextlib.redirect_stdout(printed):
        try:
            importlib.import_module(name).main()
        except SystemExit:
            pass
    answer = printed.getvalue().encode()
    sys.stdout.buffer.write(b"%d\n%s" % (len(answer), answer))
    sys.stdout.buffer.flush()
