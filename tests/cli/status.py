# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is what `status --json` printed what the manual says? Usage: status.py MANUAL <JSON

MANUAL is flockctl.1: the keys are those that it lists between "What --json prints" and the next heading, an object a table.
Prints nothing when all is well."""
import datetime
import re
import sys

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
STATES = {"free", "held", "inherited", "abandoned", "blocked"}
TOKEN = re.compile(r'[{}\[\]:,]|"(?:[^"\\\0-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-f]{4}))*"|-?(?:0|[1-9]\d*)|true|false|null')
WORDS = {"true": True, "false": False, "null": None}


class Parser:
    """JSON, strictly, of which python3-minimal has no module; without fractions, which we don't print."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def take(self, *wanted):
        token = TOKEN.match(self.text, self.at)
        if not token or (wanted and token[0] not in wanted):
            sys.exit(f"not JSON at {self.text[self.at:self.at + 40]!r}")
        self.at = token.end()
        return token[0]

    def items(self, end, item):
        if self.text.startswith(end, self.at):
            return self.take() and []
        found = [item()]
        while self.take(",", end) == ",":
            found.append(item())
        return found

    def pair(self):
        key = self.value()
        check(isinstance(key, str), f"the key {key!r}")
        self.take(":")
        return key, self.value()

    def value(self):
        token = self.take()
        if token == "{":
            pairs = self.items("}", self.pair)
            check(len(dict(pairs)) == len(pairs), f"a key twice in {pairs}")
            return dict(pairs)
        if token == "[":
            return self.items("]", self.value)
        if token[0] == '"':
            return re.sub(r"\\(?:u(....)|(.))", lambda hit: chr(int(hit[1], 16)) if hit[1] else hit[2], token[1:-1])
        return WORDS[token] if token in WORDS else int(token)


def read_manual(path):
    """{"P": {"pid", ...}, ...}: the keys of each object."""
    objects, name = {}, None
    with open(path, encoding="utf-8") as manual:
        text = manual.read()
    text = text[text.index(".SS What \\-\\-json prints"):]
    text = text[: text.index("\n.S", 4)]
    for line in text.splitlines():
        head = re.match(r'^\.\\" object (\w+)', line)
        if head:
            name = head.group(1).replace("_continued", "")
            objects.setdefault(name, set())
        elif name and line.startswith("\\fB"):
            objects[name] |= set(re.findall(r"\\fB(\w+)\\fR", line.split("\t")[0]))
    return objects


def check(good, what):
    if not good:
        print(what)


def keys_are(value, wanted, where):
    check(set(value) == wanted, f"{where}: keys {sorted(set(value) ^ wanted)} are in one only")


def is_optional(value, kind):
    return value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool)))


def check_process(process, where):
    for key in "pid", "start_time", "pid_namespace":
        check(is_optional(process[key], int), f"{where}.{key}: {process[key]!r}")
    for key in "command", "label", "id":
        check(is_optional(process[key], str), f"{where}.{key}: {process[key]!r}")
    check(process["since"] is None or TIME.match(process["since"]), f"{where}.since: {process['since']!r}")
    if process["since"]:
        datetime.datetime.fromisoformat(process["since"].replace("Z", "+00:00"))
    for key in "acquirer", "shared", "stopped", "foreign":
        check(isinstance(process[key], bool), f"{where}.{key}: {process[key]!r}")


def check_slots(row, objects, where):
    for index, slot in enumerate(row["slots"]):
        here = f"{where}.slots[{index}]"
        keys_are(slot, objects["slot"], here)
        check(slot["slot"] == index and slot["state"] in STATES, f"{here}: {slot['slot']} {slot['state']}")
        for process in slot["holders"] + ([slot["last"]] if slot["last"] else []):
            keys_are(process, objects["P"], here)
            check_process(process, here)
    for waiter in row["waiters"]:
        keys_are(waiter, objects["P"] | objects["waiter"], where)
        check_process(waiter, where)
        check(isinstance(waiter["waited_ms"], int) and waiter["waited_ms"] >= 0, f"{where}: waited_ms")
        for want in waiter["wants"]:
            keys_are(want, objects["want"], where)
            check(is_optional(want["count"], int) and isinstance(want["shared"], bool), f"{where}: {want}")


objects = read_manual(sys.argv[1])
RAW = sys.stdin.buffer.read().decode("utf-8")  # strictly
check(RAW.isprintable() or RAW[:-1].isprintable(), "a character that isn't printable stands in it")
check(RAW[-1:] == "\n", "no newline at the end")
parser = Parser(RAW[:-1])
status = parser.value()
check(parser.at == len(RAW) - 1, "something stands behind it")
keys_are(status, objects["status"], "the whole")
check(status["schema"] == 1 and isinstance(status["root"], str), "schema or root")
names = [row["name"] for row in status["names"]]
check(names == sorted(names), "the names aren't sorted")
for row in status["names"]:
    keys_are(row, objects["name"], row["name"])
    check_slots(row, objects, row["name"])
    for under in row["under"]:
        keys_are(under, objects["under"], row["name"])
        check_slots(under, objects, f"{row['name']}.{under['id']}")
