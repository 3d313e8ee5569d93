"""Runs a program in a terminal as a person does: terminal.py STEP... -- PROGRAM ARGUMENT...

A step is `see=TEXT`, which waits until the text stands on the screen, `type=TEXT` (`\\r` is Enter), or `touch=FILE`, which
makes a file. At the end the screen is printed. Where a text never comes, so is the screen, and the exit code is 1.
"""

import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte

COLUMNS, LINES = 120, 100
PATIENCE = 60


class Terminal:
    def __init__(self, command):
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            os.execv(command[0], command)
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    def shown(self):
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def read(self):
        """Takes in what the program has written; False when it has ended."""
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.stream.feed(os.read(self.terminal, 65536))
            except OSError:
                return False
        return True

    def see(self, text):
        end = time.monotonic() + PATIENCE
        while text not in self.shown():
            if time.monotonic() > end or not self.read():
                return False
        return True

    def type(self, text):
        # A key at a time, as the program reads more at once as one paste.
        for key in text.replace("\\r", "\r"):
            os.write(self.terminal, key.encode())
            self.read()


def main():
    at = sys.argv.index("--")
    terminal = Terminal(sys.argv[at + 1 :])
    code = 0
    for step in sys.argv[1:at]:
        action, _, text = step.partition("=")
        if action == "type":
            terminal.type(text)
        elif action == "touch":
            pathlib.Path(text).touch()
        elif not terminal.see(text):
            print(f"never seen: {text}")
            code = 1
            break
    print(terminal.shown())
    os.kill(terminal.child, signal.SIGTERM)
    while terminal.read():
        pass
    return code


sys.exit(main())
