#!/usr/bin/env python3
"""linearize.py: could one register, changed by one operation at a time, have given these answers?

    linearize.py HISTORY      exit code 0: yes, 1: no (and where), 3: not decided within the bound
    linearize.py              tests itself (TAP)

A history is a list of operations on versioned keys, as clients of the HTTP API saw them; in a file, one JSON object a line:

    {"key", "kind", "begin", "end", "outcome", ...}      begin, end: one monotonic clock for all clients

    kind      arguments      what it does                                        what an "ok" must agree with
    read                     nothing                                             value, version (value null: absent)
    write     value          sets it                                             version: that of the new value
    create    value          sets it where absent (If-None-Match: *)             version
    swap      value, match   sets it where the version is match (If-Match)       version
    delete                   removes it where present

    outcome   "ok"      took effect between begin and end, with the answer given
              "unmet"   412, or 404 for a delete: the condition did not hold at a moment between begin and end; changed nothing
              "unknown" may take effect at any moment after begin, or never (504, time-out, a broken connection)
    An operation that certainly did nothing (503) does not belong in a history.

Keys are independent, so each is judged alone (Herlihy and Wing 1990).  The search is that of Wing and Gong (1993): again and again
take one operation that began before every operation that is left had ended; go back where no choice is left.  As Lowe (2017) found, a
set of taken operations together with the register's content need not be looked at twice.

Versions make this sharper than values alone: each effect makes a new version, higher than all before it on that key.  Where the answer of a
write was lost, its version is unknown until somebody reads it; then it is held to what was read first (it "settles")."""
import itertools, json, random, sys

STATES_MAX = 500000  # per key; about 200 MB
NEVER = float("inf")

# What a register holds: its value; a version that its own is above; its version, None while nobody has seen it; versions that it has not.
ABSENT = (None, 0, None, frozenset())


def settle(content, version):
    """The content once its version is known; None where it cannot be that."""
    value, floor, known, barred = content
    if known is not None:
        return content if known == version else None
    return (value, floor, version, frozenset()) if version > floor and version not in barred else None


def step(content, top, op):
    """(content, top) after op, or None where op could not have given its answer.  top: the highest version known so far."""
    value, floor, version, barred = content
    kind = op["kind"]
    if op["outcome"] == "unmet":
        if kind == "swap":
            if value is None:
                return content, top
            if version is None:
                return (value, floor, None, barred | {op["match"]}), top
            return (content, top) if version != op["match"] else None
        return (content, top) if (value is None) == (kind == "delete") else None
    if kind == "read":
        if op["value"] != value:
            return None
        if value is None:
            return content, top
        content = settle(content, op["version"])
        return content and (content, max(top, op["version"]))
    if kind == "delete":
        return (ABSENT, top) if value is not None else None
    if kind == "create" and value is not None:
        return None
    if kind == "swap":
        if value is None or settle(content, op["match"]) is None:
            return None
        top = max(top, op["match"])
    if op["outcome"] == "unknown":
        return (op["value"], top, None, frozenset()), top
    return ((op["value"], top, op["version"], frozenset()), op["version"]) if op["version"] > top else None


def key_is_linearizable(operations, states_max=STATES_MAX):
    """(True | False | None for undecided, the longest order that was found, as a list of operations)."""
    ops = sorted(operations, key=lambda o: o["begin"])
    ends = [NEVER if o["outcome"] == "unknown" else o["end"] for o in ops]
    must = sum(1 << i for i, o in enumerate(ops) if o["outcome"] != "unknown")
    seen, longest, order = set(), [], []

    def choices(taken, first, content, top):
        """What may come next, and what it makes: operations that began before any that is left had ended.  Those that must come first."""
        horizon, found = NEVER, []
        for i in range(first, len(ops)):
            if taken >> i & 1:
                continue
            if ops[i]["begin"] > horizon:
                break
            horizon = min(horizon, ends[i])
            found.append(i)
        for i in sorted(found, key=lambda i: ends[i]):
            after = step(content, top, ops[i]) if ops[i]["begin"] <= horizon else None
            if after is not None:
                yield (i,) + after

    stack = [(0, 0, choices(0, 0, ABSENT, 0))]
    while stack:
        taken, first, rest = stack[-1]
        if taken & must == must:
            return True, list(order)
        for i, content, top in rest:
            now = taken | 1 << i
            at = first
            while now >> at & 1:
                at += 1
            if (now, content, top) in seen:
                continue
            if len(seen) >= states_max:
                return None, longest
            seen.add((now, content, top))
            order.append(ops[i])
            if len(order) > len(longest):
                longest = list(order)
            stack.append((now, at, choices(now, at, content, top)))
            break
        else:
            stack.pop()
            if order:
                order.pop()
    return False, longest


def history_is_linearizable(history, states_max=STATES_MAX):
    """(verdict, sentences that say why not, one for each key that fails or is undecided)."""
    keys, verdict, why = {}, True, []
    for op in history:
        keys.setdefault(op["key"], []).append(op)
    for key, operations in sorted(keys.items()):
        good, order = key_is_linearizable(operations, states_max)
        if good is True:
            continue
        verdict = False if good is False else verdict and None
        left = [o for o in operations if o not in order and o["outcome"] != "unknown"]
        stuck = min(left, key=lambda o: o["end"]) if left else None
        why.append("key %s: %s after %d of %d operations; last in order: %s; does not fit: %s"
                   % (key, "no order is possible" if good is False else "undecided", len(order), len(operations), json.dumps(order[-1]) if order else "-", json.dumps(stuck)))
    return verdict, why


# --- The checker's own tests: by hand, and against every order of small histories ------------------------------------------------------
def brute_force(history):
    """The same question, answered by trying every order, and every version for writes whose answer was lost."""
    mentioned = {o[k] for o in history for k in ("version", "match") if o.get(k) is not None}
    versions = sorted(mentioned | {v + 0.5 for v in mentioned} | {0.5})
    certain = [o for o in history if o["outcome"] != "unknown"]
    unknown = [o for o in history if o["outcome"] == "unknown"]

    def replay(order, at, value, version, last):
        if at == len(order):
            return True
        o = order[at]
        holds = {"read": True, "write": True, "create": value is None, "delete": value is not None, "swap": value is not None and version == o.get("match")}[o["kind"]]
        if o["outcome"] == "unmet":
            return not holds and replay(order, at + 1, value, version, last)
        if not holds:
            return False
        if o["kind"] == "read":
            return o["value"] == value and (value is None or o["version"] == version) and replay(order, at + 1, value, version, last)
        if o["kind"] == "delete":
            return replay(order, at + 1, None, None, last)
        for new in [o["version"]] if o["outcome"] == "ok" else versions:
            if new > last and replay(order, at + 1, o["value"], new, new):
                return True
        return False

    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            for order in itertools.permutations(certain + list(some)):
                if all(a["begin"] <= (NEVER if b["outcome"] == "unknown" else b["end"]) for a, b in itertools.combinations(order, 2)) and replay(order, 0, None, None, 0):
                    return True
    return False


def draw_history(chance, count, spoil):
    """A history of a true register; spoil: some answers are then changed at random, which may or may not break it."""
    value, version, history = None, 0, []
    for i in range(count):
        kind = chance.choice(["read", "read", "write", "create", "swap", "delete"])
        op = {"key": "k", "kind": kind, "begin": 10 * i - chance.randrange(25), "end": 10 * i + chance.randrange(25), "outcome": "ok"}
        if kind in ("write", "create", "swap"):
            op["value"] = "v%d" % i
        if kind == "swap":
            op["match"] = chance.choice([version, version, max(1, version - 1)])
        holds = {"read": True, "write": True, "create": value is None, "delete": value is not None, "swap": value is not None and version == op.get("match")}[kind]
        if not holds:
            op["outcome"] = "unmet"
        elif kind == "read":
            op["value"], op["version"] = value, version if value is not None else None
        elif kind == "delete":
            value = None
        else:
            version += chance.randrange(1, 3)
            value, op["version"] = op["value"], version
        if kind != "read" and chance.random() < 0.2:
            if op["outcome"] == "ok" or chance.random() < 0.5:
                op["outcome"] = "unknown"
                op.pop("version", None)
        history.append(op)
    for op in chance.sample(history, spoil):
        if op["kind"] == "read":
            op["value"] = chance.choice([None] + [o["value"] for o in history if o.get("value")])
            op["version"] = chance.randrange(1, 2 * count) if op["value"] else None
        elif op["outcome"] == "ok" and "version" in op:
            op["version"] = chance.randrange(1, 2 * count)
        elif op["outcome"] == "unmet":
            op["outcome"] = "ok"
            if op["kind"] in ("create", "swap"):
                op["version"] = chance.randrange(1, 2 * count)
    return history


def self_test():
    results = []

    def ok(condition, text):
        results.append(condition)
        print("%sok %d - %s" % ("" if condition else "not ", len(results), text), flush=True)

    def op(kind, begin, end, outcome="ok", **more):
        return dict(key="k", kind=kind, begin=begin, end=end, outcome=outcome, **more)

    w1, w2 = op("write", 0, 10, value="a", version=5), op("write", 20, 30, value="b", version=7)
    for expected, text, history in (
            (True, "a read sees the write before it", [w1, op("read", 11, 12, value="a", version=5)]),
            (False, "a read after a second write must not see the first (stale read)", [w1, w2, op("read", 31, 32, value="a", version=5)]),
            (True, "a read beside a write may see either", [w1, w2, op("read", 21, 29, value="a", version=5), op("read", 21, 29, value="b", version=7)]),
            (False, "but not the new one and then the old one", [w1, w2, op("read", 21, 22, value="b", version=7), op("read", 23, 24, value="a", version=5)]),
            (False, "an answered write must not vanish", [w1, op("read", 11, 12, value=None, version=None)]),
            (True, "a write of unknown fate may have happened", [op("write", 0, 1, "unknown", value="a"), op("read", 50, 51, value="a", version=9)]),
            (True, "or not", [op("write", 0, 1, "unknown", value="a"), op("read", 50, 51, value=None, version=None)]),
            (True, "or happen late", [op("write", 0, 1, "unknown", value="a"), op("read", 50, 51, value=None, version=None), op("read", 60, 61, value="a", version=3)]),
            (False, "but not twice", [op("write", 0, 1, "unknown", value="a"), op("read", 2, 3, value="a", version=3), w2, op("read", 40, 41, value="a", version=3)]),
            (False, "nor under two versions", [op("write", 0, 1, "unknown", value="a"), op("read", 2, 3, value="a", version=3), op("read", 4, 5, value="a", version=4)]),
            (False, "versions must rise", [op("write", 0, 1, value="a", version=5), op("write", 2, 3, value="b", version=4)]),
            (False, "two swaps of one version cannot both succeed", [w1, op("swap", 11, 15, match=5, value="x", version=8), op("swap", 11, 15, match=5, value="y", version=9)]),
            (True, "one of them can", [w1, op("swap", 11, 15, match=5, value="x", version=8), op("swap", 11, 15, "unmet", match=5, value="y")]),
            (False, "a swap that should have succeeded must not be refused", [w1, op("swap", 11, 15, "unmet", match=5, value="y")]),
            (False, "two creations cannot both succeed", [op("create", 0, 5, value="a", version=1), op("create", 0, 5, value="b", version=2)]),
            (True, "a deletion between them makes it right", [op("create", 0, 1, value="a", version=1), op("delete", 2, 3), op("create", 4, 5, value="b", version=2)]),
    ):
        ok(history_is_linearizable(history)[0] is expected, text)
    differ, verdicts = 0, {True: 0, False: 0}
    for seed in range(1500):
        chance = random.Random(seed)
        history = draw_history(chance, chance.randrange(3, 7), seed % 3)
        expected = brute_force(history)
        verdicts[expected] += 1
        differ += history_is_linearizable(history)[0] is not expected
    ok(differ == 0 and min(verdicts.values()) > 100, "1,500 small random histories: the verdict is that of trying every order (%d good, %d bad, %d differ)" % (verdicts[True], verdicts[False], differ))
    verdicts = [history_is_linearizable(draw_history(random.Random(seed), 1000, 0))[0] for seed in range(3)]
    ok(verdicts == [True] * 3, "histories of 1,000 operations on one key are decided: %s" % verdicts)
    return 0 if all(results) else 1


def main():
    if len(sys.argv) == 1:
        return self_test()
    with open(sys.argv[1]) as f:
        verdict, why = history_is_linearizable([json.loads(line) for line in f if line.strip()])
    for sentence in why:
        print(sentence)
    return {True: 0, False: 1, None: 3}[verdict]


if __name__ == "__main__":
    sys.exit(main())
