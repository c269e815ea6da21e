#!/usr/bin/env python3
"""A second verifier of attestation evidence, written from docs/FORMATS.md and the TPM's specification with nothing but hashes and OpenSSL's
ECDSA, judges every case that the unit tests judge: if the two differed, one of them would let a forged gateway in or shut a good one out."""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
START_PCR = 14


class Refused(Exception):
    pass


def need(condition, why):
    if not condition:
        raise Refused(why)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def item(data, at):
    """One item of deterministic CBOR at data[at:]: value and where the next begins.  Null is None."""
    need(at < len(data), "short CBOR")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        need(low in (20, 21, 22), "simple value")
        return {20: False, 21: True, 22: None}[low], at
    number = low
    if low >= 24:
        need(low <= 27, "indefinite length")
        size = 1 << (low - 24)
        need(at + size <= len(data), "short CBOR")
        number = int.from_bytes(data[at:at + size], "big")
        at += size
        need(number >= (24 if size == 1 else 1 << (4 * size)), "not the shortest form")
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        need(at + number <= len(data), "short CBOR")
        value = bytes(data[at:at + number])
        if major == 3:
            try:
                return value.decode("utf-8"), at + number
            except UnicodeDecodeError:
                raise Refused("bad UTF-8") from None
        return value, at + number
    need(major == 4, "a tag or map")
    out = []
    need(number <= len(data), "long array")
    for _ in range(number):
        value, at = item(data, at)
        out.append(value)
    return out, at


def whole(data):
    value, at = item(data, 0)
    need(at == len(data), "trailing bytes")
    return value


def integer(value, most=(1 << 64) - 1):
    need(type(value) is int and 0 <= value <= most, "number")
    return value


def octets(value, size=None, most=1 << 30):
    need(type(value) is bytes and (len(value) == size if size is not None else len(value) <= most), "bytes")
    return value


def text(value, most=64, least=1):
    need(type(value) is str and least <= len(value.encode()) <= most, "text")
    return value


def array(value, size):
    need(type(value) is list and len(value) == size, "array")
    return value


def pcrs_of(mask):
    return [pcr for pcr in range(24) if mask >> pcr & 1]


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        need(self.at + size <= len(self.data), "short structure")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def end(self):
        need(self.at == len(self.data), "long structure")


def boot_log(log):
    """The events (pcr, digest) of a crypto-agile log, and the locality of the start."""
    need(len(log) <= 256 * 1024, "long log")
    c = Cursor(log)
    need(c.number("<I") == 0 and c.number("<I") == 3, "head")
    c.take(20)
    head = Cursor(c.take(c.number("<I")))
    need(head.take(16) == b"Spec ID Event03\0", "signature")
    head.take(8)
    sizes = {}
    count = head.number("<I")
    need(1 <= count <= 8, "algorithms")
    known = {4: 20, 11: 32, 0x12: 32, 0x27: 32, 0xC: 48, 0x28: 48, 0xD: 64, 0x29: 64}
    for _ in range(count):
        algorithm, size = head.number("<H"), head.number("<H")
        need(algorithm not in sizes and (known.get(algorithm) == size or (algorithm not in known and 0 < size <= 64)), "algorithm")
        sizes[algorithm] = size
    head.take(head.number("<B"))
    head.end()
    need(11 in sizes, "no SHA-256")
    events, locality, seen0 = [], 0, False
    total = 0
    while c.at < len(log):
        total += 1
        need(total <= 4096, "many events")
        pcr, kind = c.number("<I"), c.number("<I")
        digests = {}
        need(c.number("<I") == len(sizes), "digests")
        for _ in sizes:
            algorithm = c.number("<H")
            need(algorithm in sizes and algorithm not in digests, "digest")
            digests[algorithm] = c.take(sizes[algorithm])
        data = c.take(c.number("<I"))
        if kind == 3:
            if len(data) == 17 and data[:16] == b"StartupLocality\0" and not seen0:
                locality = data[16]
            continue
        need(pcr < 24, "register")
        seen0 = seen0 or pcr == 0
        events.append((pcr, digests[11]))
    return events, locality


def judge(q, evidence):
    policy, known = q["policy"], q["known"]
    need(len(evidence) <= 1 << 19, "size")
    version, statement, quote, signature = array(whole(evidence), 4)
    need(integer(version) == 1, "version")
    octets(statement), octets(quote, most=512), octets(signature, 64)
    version, kind, site, node, raft_id, signing_key, tls_key, nonce, made, body = array(whole(statement), 10)
    need(integer(version) == 1 and integer(kind, 3) in (1, 2), "type")  # the cases are of gateways with a TPM
    need(type(made) is int and -(1 << 63) <= made < 1 << 63, "made")
    need(policy["types"] >> kind & 1, "type not accepted")
    need(known is not None and known["type"] == kind, "unproven")
    need(not known["seen"] or known["serial"] <= policy["serial"], "policy went back")
    need(octets(nonce, 32) == q["nonce"], "nonce")
    need((text(site), text(node), integer(raft_id), octets(signing_key, 32), octets(tls_key, 32)) == q["who"], "identity")
    key_name, mask, values, log, starts = array(body, 5)
    need(octets(key_name, 34) == known["name"], "key name")
    integer(mask, 0xFFFFFF)
    array(values, len(pcrs_of(mask)))
    values = dict(zip(pcrs_of(mask), [octets(v, 32) for v in values]))
    need(log is None or octets(log) is not None, "log")
    octets(starts, most=64 * 1024)

    c = Cursor(quote)
    need(c.number(">I") == 0xFF544347 and c.number(">H") == 0x8018, "no quote")
    signer, extra = c.take(c.number(">H")), c.take(c.number(">H"))
    clock, resets, restarts, safe, firmware = c.number(">Q"), c.number(">I"), c.number(">I"), c.number(">B"), c.number(">Q")
    need(safe <= 1 and c.number(">I") == 1 and c.number(">H") == 11 and c.number(">B") == 3, "selection")
    need(int.from_bytes(c.take(3), "little") == policy["mask"] == mask, "registers")
    digest = c.take(c.number(">H"))
    c.end()
    need(signer == known["signer"], "signer")
    need(extra == sha256(b"grey-evidence-1\0", statement), "binding")
    need(digest == sha256(*[values[pcr] for pcr in pcrs_of(mask)]), "digest")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    need(0 < r < ORDER and 0 < s <= ORDER // 2, "signature form")
    try:
        known["key"].verify(utils.encode_dss_signature(r, s), quote, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("signature") from None
    if known["seen"]:
        need((resets, restarts) >= (known["resets"], known["restarts"]), "counters")
        need((resets, restarts) > (known["resets"], known["restarts"]) or clock >= known["clock"], "clock")
        need(resets != known["resets"] or firmware == known["firmware"], "firmware changed")
    need(not policy["firmwares"] or firmware in policy["firmwares"], "firmware")

    def accepted(what, pcr, digest, learnt, ever=False):
        named = [v for v in policy["values"] if v[0] == what and v[1] == pcr]
        good = any(v[2] == digest and v[3] <= q["now"] and (ever or v[4] == -1 or q["now"] < v[4]) for v in named)
        need(good or policy["learn"] or (not named and digest in learnt), "reference")

    def named_by_events(pcr):
        return any(v[0] == 1 and v[1] == pcr for v in policy["values"])

    boot = [pcr for pcr in pcrs_of(mask) if pcr != START_PCR]
    base = bytes(32)
    if log is None:
        need(known["seen"] and known["serial"] == policy["serial"], "log left out")
        need({pcr: values[pcr] for pcr in boot} == known["values"], "log left out, registers changed")
        base = known["base"]
    elif log:
        events, locality = boot_log(log)
        state = {pcr: (b"\xff" if 17 <= pcr <= 22 else b"\0") * 32 for pcr in range(24)}
        touched = {pcr for pcr, _ in events}
        if 0 in touched:
            state[0] = bytes(31) + bytes([locality])
        for pcr, event in events:
            state[pcr] = sha256(state[pcr], event)
        for pcr in boot:
            need((pcr not in touched and pcr > 7) or state[pcr] == values[pcr], "replay")
        for pcr, event in events:
            if pcr in boot and named_by_events(pcr):
                accepted(1, pcr, event, [])
        base = state[START_PCR]
    else:
        need(not policy["needs_log"], "no log")
    for pcr in boot:
        if log == b"" or not named_by_events(pcr):
            accepted(0, pcr, values[pcr], [known["values"].get(pcr)] if known["seen"] else [])
    if mask >> START_PCR & 1:
        need(starts, "no start")
        rows, at, total = [], 0, 0
        while at < len(starts):
            row, at = item(starts, at)
            count, word, program, config = array(row, 4)
            need(integer(count) >= 1, "count")
            total += count
            need(total <= 4096, "many starts")
            rows.append((text(word, least=0).encode(), octets(program, 32), octets(config, 32)))
            measured = sha256(b"grey-start-1\0", bytes([len(rows[-1][0])]), *rows[-1])
            for _ in range(count):
                base = sha256(base, measured)
        need(base == values[START_PCR], "starts")
        for place, (_, program, config) in enumerate(rows):
            ever = place + 1 < len(rows)
            accepted(2, START_PCR, program, [known["program"]] if known["seen"] else [], ever)
            accepted(3, START_PCR, config, [known["config"]] if known["seen"] else [], ever)


def question(line):
    raw = {key: bytes.fromhex(value) for key, value in line.items() if type(value) is str}
    p = array(whole(raw["policy"]), 10)
    policy = dict(zip(("version", "name", "serial", "learn", "needs_log", "types", "mask", "validity", "firmwares", "values"), p))
    known = None
    if raw["known"]:
        k = whole(raw["known"])
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + k[4])
        known = {"type": k[1], "name": k[3], "key": point, "signer": k[5], "seen": len(k) == 16}
        if known["seen"]:
            known.update(zip(("clock", "firmware", "serial", "resets", "restarts", "mask"), k[6:12]))
            known["values"] = dict(zip(pcrs_of(known["mask"]), k[12]))
            known.update(zip(("base", "program", "config"), k[13:16]))
    who = (raw["site"].decode(), raw["node"].decode(), line["raft_id"], raw["signing_key"], raw["tls_key"])
    return {"policy": policy, "known": known, "who": who, "nonce": raw["nonce"], "now": line["now_ms"]}


def main():
    print("1..2")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "cases")
        program = os.path.join(os.environ["BUILD"], "tests", "test_appraise")
        subprocess.run([program, "--cases", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        q, accepted, refused, differ = None, 0, 0, []
        with open(path, encoding="ascii") as cases:
            for place, row in enumerate(cases):
                line = json.loads(row.replace(",}", "}"))
                if "policy" in line:
                    q = question(line)
                    continue
                try:
                    judge(q, bytes.fromhex(line["evidence"]))
                    why = "accepted"
                    accepted += 1
                except Refused as reason:
                    why = str(reason)
                    refused += 1
                if (why == "accepted") != (line["verdict"] == "E_OK"):
                    differ.append(f"line {place + 1}: {why} here, {line['verdict']} there")
    print(f"# {accepted} accepted, {refused} refused")
    print(("ok" if accepted >= 1000 and refused >= 10000 else "not ok") + " 1 - the cases are many, good ones and forged ones")
    print(("not ok" if differ else "ok") + " 2 - both verifiers say the same of every case")
    for line in differ[:20]:
        print(f"# {line}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
