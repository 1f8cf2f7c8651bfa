#!/usr/bin/env python3
"""Verifies a record of Portcullis by docs/audit.md alone, with no code of the gateway: a second opinion, and a model for others.

    verify_audit.py KEY DIRECTORY [--unsigned-max N] [CHECKPOINT ..]     verify_audit.py KEY --proof FILE

Prints what it found and ends with 0, or names the first fault and ends with 1."""
import base64, hashlib, json, os, re, sys

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

class Fault(Exception): pass
def need(holds, what):
    if not holds: raise Fault(what)

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()

# Ed25519, RFC 8032: points in extended coordinates.
def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P

def times(n, p):
    q = (0, 1, 1, 0)
    while n:
        q, p, n = add(q, p) if n & 1 else q, add(p, p), n >> 1
    return q

def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    x = x if (x * x - x2) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and (x * x - x2) % P == 0 and not (x == 0 and sign), "a point is not on the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P

BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))

def signed(public, text, signature):
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % L
    try:
        left, right = times(s, BASE), add(point(signature[:32]), times(h, point(public)))
    except Fault: return False
    same = [(left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1)]
    return len(signature) == 64 and s < L and all(same)

def unbase64(text, size=None):
    try: data = base64.b64decode(text, validate=True)
    except ValueError: data = b""
    need(data and base64.b64encode(data).decode() == text and size in (None, len(data)), "no base64: " + text[:80])
    return data

def read_key(text):
    name, key_id, typed = text.strip().split("+", 2)
    typed = unbase64(typed, 33)
    need(typed[0] == 1 and sha(name.encode(), b"\n", typed)[:4].hex() == key_id, "no key for checkpoints")
    return name, bytes.fromhex(key_id), typed[1:]

def open_text(note, key):
    """The lines of a text that the key signed."""
    name, key_id, public = key
    text, blank, signatures = note.rpartition("\n\n")
    need(blank and signatures.endswith("\n") and not re.search("[\x00-\x09\x0b-\x1f]", note), "no signed note")
    text, is_signed = text + "\n", False
    for line in signatures[:-1].split("\n"):
        match = re.fullmatch("— ([^ ]+) ([^ ]+)", line)
        need(match, "no signed note")
        data = unbase64(match[2])
        if match[1] == name and data[:4] == key_id:
            need(signed(public, text.encode(), data[4:]), "the signature of a note is wrong")
            is_signed = True
    need(is_signed, "a note is not signed by this key")
    return text.split("\n")[:-1]

def number(text):
    need(re.fullmatch("0|[1-9][0-9]{0,19}", text) and int(text) < 2**64, "no number: " + text[:80])
    return int(text)

def open_note(note, key):
    """Size and root of a checkpoint that the key signed."""
    lines = open_text(note, key)
    need(len(lines) >= 3 and all(lines) and lines[0] == key[0], "no checkpoint of this log")
    return number(lines[1]), unbase64(lines[2], 32)

def open_base(note, key):
    """What stands for the records that were removed: how many, the last one's number and digest, and the trees over them."""
    lines = open_text(note, key)
    need(lines[:2] == ["portcullis/base@v1", key[0]] and len(lines) > 4, "the file `base` is none of this log")
    size, seq, nodes = number(lines[2]), number(lines[3]), [unbase64(line, 32) for line in lines[4:]]
    need(0 < size <= seq and len(nodes) == 1 + bin(size).count("1"), "the file `base` cannot be understood")
    return size, seq, nodes[0], nodes[1:]

def root_of(nodes):
    root = nodes[-1] if nodes else sha()
    for left in reversed(nodes[:-1]): root = sha(b"\1", left, root)
    return root

def push(nodes, size, leaf):
    while size & 1: leaf, size = sha(b"\1", nodes.pop(), leaf), size >> 1
    nodes.append(leaf)

def strict(text):
    """A JSON value; what other readers refuse is refused."""
    def refuse(what): raise ValueError(what)
    value = json.loads(text, parse_constant=refuse, parse_float=lambda text: refuse(text) if "inf" in str(float(text)) else float(text))
    if b"\\ud" in text.lower(): json.dumps(value, ensure_ascii=False).encode()
    return value

def counted(path, following):
    """The bytes of a segment that count, and how many follow: the next one's first record may say so."""
    data = open(path, "rb").read()
    line = open(following, "rb").readline(65536) if following else b""
    first = strict(line) if line.startswith(b"{") and line.endswith(b"\n") else {}
    cut = first.get("kind") == "recovered" and first.get("segment") == os.path.basename(path) and type(first.get("segment_bytes")) is int
    end = min(len(data), first["segment_bytes"]) if cut and first["segment_bytes"] >= 0 else len(data)
    return data[:end], len(data) - end

LEAD = rb'\{"seq":(0|[1-9][0-9]{0,19}),"prev":"(.{64})","kind":"([^"]{0,31})"'

def verify(directory, key, known, unsigned_max=None):
    (size, seq, prev, nodes), base = (0, 0, bytes(32), []), os.path.join(directory, "base")
    if os.path.exists(base):
        size, seq, prev, nodes = open_base(open(base, encoding="utf-8", newline="").read(), key)
    removed, begun, said_removed, wanted, last, open_intents, gaps, beyond = size, seq, 0, {}, -1, set(), [], 0
    notes = os.path.join(directory, "checkpoints")
    lines = open(notes, encoding="utf-8", newline="").read().split("\n") if os.path.exists(notes) else [""]
    need(len(lines) % 5 == 1 and lines[-1] == "", "the file `checkpoints` ends in half a note")
    for at in range(0, len(lines) - 1, 5):
        over, root = open_note("\n".join(lines[at : at + 5]) + "\n", key)
        need(over > last, "the checkpoints are not in their order")
        wanted[over], last = [root], over
    # Of several notes the last counts.
    alone = [note if note.count("\n\n") == 1 else "\n".join(note.split("\n")[-6:]) for note in known]
    for at, root in (open_note(note, key) for note in alone):
        need(at >= removed, "a checkpoint is over less than what was removed")
        wanted.setdefault(at, []).append(root)
    covered = max(wanted, default=0)
    need(all(root == root_of(nodes) for root in wanted.get(size, [])), "the records removed are not those of a checkpoint")
    names = sorted(name for name in os.listdir(directory) if name.endswith(".jsonl") and name != ".jsonl")
    need(all(re.fullmatch("[0-9]{20}", name[:-6]) and 0 < int(name[:-6]) < 2**64 for name in names), "a file is no segment")
    need(all(int(name[:-6]) > begun for name in names), "a segment is left of what was removed")
    segments = [os.path.join(directory, name) for name in names]
    for index, path in enumerate(segments):
        data, after = counted(path, segments[index + 1] if index + 1 < len(segments) else None)
        beyond += after
        need(not data or data.endswith(b"\n"), path + " ends in half a line")
        for at, line in enumerate(data.split(b"\n")[:-1]):
            where = f"line {at + 1} of {path}: "
            lead = re.match(LEAD, line)
            need(lead and re.fullmatch(b"[ -~]{1,65535}", line) and line.endswith(b"}"), where + "no record")
            after, kind = int(lead[1]), lead[3]
            try: record = strict(line)
            except (ValueError, RecursionError): raise Fault(where + "no record")
            need(lead[2] == prev.hex().encode(), where + "`prev` is not the digest of the line before")
            need(after < 2**64 and (after == seq + 1 or kind == b"recovered" and after > seq), where + "`seq` does not follow the line before")
            need(at or after == int(os.path.basename(path)[:20]), path + " is not named after its first record")
            gaps += [range(seq + 1, after)] if after > seq + 1 else []
            if kind == b"intent":
                open_intents.add(after)
            elif kind == b"result":
                intent = re.match(LEAD + rb',"time":".{27}","intent":(0|[1-9][0-9]*)', line)
                intent = int(intent[4]) if intent else 0
                is_gone = 0 < intent <= begun or any(intent in gap for gap in gaps)
                need(intent in open_intents or is_gone, where + "the result of no open intent")
                open_intents.discard(intent)
            elif kind == b"removed" and size < covered and type(record.get("leaves")) is int:
                said_removed = max(said_removed, record["leaves"])
            seq, prev = after, sha(line)
            push(nodes, size, sha(b"\0", line))
            size += 1
            need(all(root == root_of(nodes) for root in wanted.get(size, [])), where + "the records are not those of a checkpoint")
    need(covered <= size, f"a checkpoint is over more than the {size} records there are")
    need(said_removed >= removed, "the first records are missing, and no record says that they were removed")
    unsigned_max = (1000 if covered else 0) if unsigned_max is None else unsigned_max
    need(size - covered <= unsigned_max, f"{size - covered} records at the end are under no checkpoint, and {unsigned_max} may be")
    beyond = f", {beyond} bytes that count for nothing" if beyond else ""
    return f"{size - removed} records hold, {size - covered} of them under no checkpoint, {len(open_intents)} intents without a result{beyond}"

def climb(first, last, left, right, path):
    """Follows a path of hashes up the tree; `left` is the old tree's side, where there is one."""
    for sibling in path:
        need(last > 0, "the proof is too long")
        if first & 1 or first == last:
            left, right = sha(b"\1", sibling, left), sha(b"\1", sibling, right)
            while not first & 1 and first: first, last = first >> 1, last >> 1
        else:
            right = sha(b"\1", right, sibling)
        first, last = first >> 1, last >> 1
    need(last == 0, "the proof is too short")
    return left, right

def verify_proof(text, key):
    head, _, rest = text.partition("\n\n")
    kind, *lines = head.split("\n")
    if kind == "c2sp.org/tlog-proof@v1":
        need(len(lines) > 1 and re.fullmatch("extra .+", lines[0]) and re.fullmatch("index (0|[1-9][0-9]*)", lines[1]), "no proof")
        line, index = unbase64(lines[0][6:]), int(lines[1][6:])
        size, root = open_note(rest, key)
        leaf = sha(b"\0", line)
        need(index < size and climb(index, size - 1, leaf, leaf, [unbase64(hash, 32) for hash in lines[2:]])[1] == root, "not in the tree")
        return f"leaf {index} of {size}: {line.decode('ascii')}"
    need(kind == "portcullis/consistency-proof@v1", "no proof")
    notes = rest.split("\n")
    need(len(notes) == 12 and notes[5] == "" and notes[11] == "", "no proof")
    (old, old_root), (new, root) = (open_note("\n".join(notes[at : at + 5]) + "\n", key) for at in (0, 6))
    path = [unbase64(hash, 32) for hash in lines]
    need(0 < old <= new and (old < new or not path and old_root == root), "not consistent")
    if old < new:
        path = ([old_root] if old & (old - 1) == 0 else []) + path
        need(path, "not consistent")
        position, last = old - 1, new - 1
        while position & 1: position, last = position >> 1, last >> 1
        need(climb(position, last, path[0], path[0], path[1:]) == (old_root, root), "not consistent")
    return f"the {new} records begin with the {old}"

def main(arguments):
    need(len(arguments) > 1, "usage: verify_audit.py KEY DIRECTORY [CHECKPOINT ..], or verify_audit.py KEY --proof FILE")
    given = arguments[0]
    key = read_key(given if "+" in given and not os.path.exists(given) else open(given).read())
    limit, rest = (int(arguments[3]), arguments[4:]) if arguments[2:3] == ["--unsigned-max"] else (None, arguments[2:])
    text = [open(path, encoding="utf-8", newline="").read() for path in rest]
    print(verify_proof(text[0], key) if arguments[1] == "--proof" else verify(arguments[1], key, text, limit))

if __name__ == "__main__":
    try: main(sys.argv[1:])
    except (Fault, OSError, ValueError, LookupError) as fault:
        sys.exit(f"fault: {fault}")
