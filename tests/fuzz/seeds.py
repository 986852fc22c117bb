#!/usr/bin/env python3
"""Makes the first inputs of the corpus: captured frames, and values that are written here as the formats say.

    python3 tests/fuzz/seeds.py

Files that are there stay. What a fuzzer found beyond them is kept beside them, minimised.
"""
import json
import pathlib
import struct
import zlib

HERE = pathlib.Path(__file__).parent
WIRE = HERE.parent / "wire"


def put(target, name, data):
    path = HERE / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)


def record(body, topic="T", queue=0, offset=0, position=0, properties=b"KEYS\x01k\x02", flags=0, v2=False):
    host = lambda six: bytes(15) + b"\x01" + struct.pack(">I", 9876) if six else bytes([127, 0, 0, 1]) + struct.pack(">I", 9876)
    topic = topic.encode()
    tail = struct.pack(">iiqqiq", queue, 7, offset, position, flags, 1)
    tail += host(flags & 0x10) + struct.pack(">q", 2) + host(flags & 0x20) + struct.pack(">iq", 3, 4)
    tail += struct.pack(">i", len(body)) + body
    tail += (struct.pack(">H", len(topic)) if v2 else bytes([len(topic)])) + topic
    tail += struct.pack(">h", len(properties)) + properties
    crc = zlib.crc32(body) & 0x7FFFFFFF
    head = struct.pack(">iII", 12 + len(tail), 0xDAA320AB if v2 else 0xDAA320A7, crc)
    return head + tail


def entry(index, term, position, previous=0, kind=1, messages=b"", names=(), command=b""):
    body = bytes([1, kind, 0, 0]) + struct.pack(">QQQI", index, term, position, previous)
    body += struct.pack(">III", 1 if messages else 0, len(messages), zlib.crc32(messages))
    body += struct.pack(">HI", len(names), len(command))
    body += b"".join(bytes([len(name)]) + name for name in names) + command
    return record(body, "RMQ_SYS_RAFT_LOG", 0, index, position, b"") + messages


def text(value):
    return struct.pack("<Q", len(value)) + value


TOPIC = b'{"topicName":"T","readQueueNums":4,"writeQueueNums":4,"perm":6,"topicFilterType":"SINGLE_TAG"}'
GROUP = b'{"groupName":"G","consumeEnable":true,"retryMaxTimes":16}'
COMMANDS = [
    struct.pack("<I", 0) + text(TOPIC),
    struct.pack("<I", 1) + text(b"T"),
    struct.pack("<I", 2) + text(GROUP),
    struct.pack("<I", 3) + text(b"G") + b"\x01",
    struct.pack("<I", 4) + text(b"G") + text(b"T") + b"\x00",
    struct.pack("<I", 5) + text(b"G") + text(b"T") + struct.pack("<IQ", 3, 99),
    struct.pack("<I", 6) + struct.pack("<IQ", 2, 5),
    struct.pack("<I", 7) + struct.pack("<Q", 1) + text(b"brokerPermission") + text(b"4"),
]


def commands(some):
    return b"\x01" + struct.pack("<Q", len(some)) + b"".join(some)


def members(configs, nodes):
    out = b"\x01" + struct.pack("<Q", len(configs))
    for config in configs:
        out += struct.pack("<Q", len(config)) + b"".join(struct.pack("<Q", id) for id in config)
    out += struct.pack("<Q", len(nodes))
    for id, address in nodes:
        out += struct.pack("<Q", id) + text(address) + struct.pack("<QQ", 7, id)
    return out


THREE = members([[0, 1, 2]], [(0, b"a:1"), (1, b"b:1"), (2, b"c:1")])
JOINT = members([[0, 1], [1, 2]], [(0, b"a:1"), (1, b"b:1"), (2, b"c:1")])


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def log_id(term, index):
    return field(1, term) + field(2, index)


def vote(term, node, committed):
    return field(1, term) + field(2, node) + field(3, int(committed))


def remoting():
    headers, bodies = {}, {}
    frames = [path for client in ("java-5.5.0", "java-4.9.8", "go-2.1.2") for path in sorted((WIRE / client).iterdir())]
    kept = 0
    for path in frames:
        data = path.read_bytes()
        length = int.from_bytes(data[5:8], "big")
        header, body = data[8 : 8 + length], data[8 + length :]
        code = path.name.split("-")[0]
        kind = data[4]
        if len(data) < 900 and (kind == 1 or int(code) % 3 == 0) and kept < 40:
            kept += 1
            put("frame", f"{path.parent.name}-{path.name}", data)
        # One of each code and kind, the first.
        key = (code, kind, "response" in path.name)
        if key not in headers and len(header) < 700:
            headers[key] = bytes([kind]) + header
        if body[:1] in (b"{", b"[") and len(body) < 1500 and key not in bodies:
            bodies[key] = body
    for number, ((code, kind, response), data) in enumerate(sorted(headers.items())):
        if number % 4 == 0:
            put("header", f"{code}-{kind}{'-response' if response else ''}", data)
    for (code, kind, response), data in sorted(bodies.items()):
        put("body", f"{code}{'-response' if response else ''}", data)
    put("frame", "two", (WIRE / "java-5.5.0").joinpath(sorted(p.name for p in (WIRE / "java-5.5.0").iterdir())[0]).read_bytes() * 2)
    put("frame", "cut", b"\0\0\0\x20\x01\0\0\x10")
    put("body", "keys", b"{{'topic':\"T\",\"queueId\":1}:5,0:'a',\"b\":[1,2,,],}")


def registration():
    version = b'{"counter":2,"stateVersion":0,"timestamp":1}'
    part = lambda data: struct.pack(">I", len(data)) + data
    topics = [b"T 4 4 6 SINGLE_TAG {}", b'U 1 1 2 MULTI_TAG {"message.type":"NORMAL"}']
    head = part(version) + struct.pack(">I", len(topics)) + b"".join(map(part, topics)) + part(b'["a:1"]')
    mapping = b'{"topic":"T","bname":"b","totalQueues":8,"epoch":1,"currIdMap":{0:1}}'
    put("registration", "current", b"\x00" + head + struct.pack(">I", 1) + part(mapping))
    put("registration", "old", b"\x01" + head)
    put("registration", "compressed", b"\x00" + zlib.compress(head + struct.pack(">I", 0), 9))
    put("registration", "huge-counts", b"\x00" + part(version) + b"\xff\xff\xff\xff" + part(topics[0]))
    for path in sorted((WIRE / "java-5.5.0").glob("103-*"))[:2]:
        data = path.read_bytes()
        body = data[8 + int.from_bytes(data[5:8], "big") :]
        if body[:1] == b"\x78":
            put("registration", path.name, b"\x00" + zlib.decompress(body))


def messages():
    put("record", "plain", record(b"body"))
    put("record", "empty", record(b"", properties=b""))
    put("record", "v6", record(b"body", flags=0x30))
    put("record", "v2", record(b"body", topic="T" * 200, v2=True))
    put("record", "two", record(b"one", position=0) + record(b"two", offset=1, position=95))
    put("record", "entry", entry(7, 3, 4096, 9, messages=record(b"in it", position=4300), names=[b"A", b"BC"], command=b"command"))
    put("record", "blank", struct.pack(">II", 8, 0xCBD43194))
    put("record", "torn", record(b"body", properties=b"a\x01b\x02\0\0"))
    one = lambda body, properties: struct.pack(">iIIii", 22 + len(body) + len(properties), 0, 0, 5, len(body)) + body + struct.pack(">h", len(properties)) + properties
    put("batch", "one", one(b"x", b"KEYS\x01K1\x02WAIT\x01true\x02TAGS\x01TagA\x02"))
    put("batch", "three", one(b"x", b"a\x01b") + one(b"", b"") + one(b"yy", b"TAGS\x01t\x02"))
    put("batch", "cut", one(b"x" * 20, b"")[:-3])
    put("batch", "negative", struct.pack(">iIIii", -1, 0, 0, 5, -1))
    for name, value in {
        "usual": b"KEYS\x01k1 k2\x02TAGS\x01TagA\x02UNIQ_KEY\x017F0000010001\x02WAIT\x01true\x02",
        "twice": b"a\x011\x02a\x012\x02a\x01\x02\x01b\x02",
        "unended": b"DELAY\x013\x02REAL_TOPIC\x01T",
        "tags": b"TagA || TagB||*",
        "offset-id": b"7F00000100002A9F0000000000000001",
        "not-utf8": b"a\x01\xff\xfe\x02\xc3\x28\x01x",
    }.items():
        put("properties", name, value)


def config():
    for path in sorted((HERE.parent.parent / "conf").rglob("*.conf")):
        put("config", str(path.relative_to(HERE.parent.parent / "conf")).replace("/", "-"), path.read_bytes())
    words = {"bool": "true", "u": "4096", "i": "-1", "String": "text", "PathBuf": "/tmp/x"}
    for name in ("broker", "namesrv"):
        source = (HERE.parent.parent / "src/config" / f"{name}.rs").read_text()
        lines = []
        for line in source.splitlines():
            line = line.strip()
            if ": " in line and " = " in line and line.endswith(",") and not line.startswith(("//", "let", "pub")):
                field, kind = line.split(": ", 1)
                kind = kind.split(" =")[0]
                if field.replace("_", "").isalnum():
                    first, *rest = field.split("_")
                    value = next((value for start, value in words.items() if kind.startswith(start)), "x")
                    lines.append(f"{first}{''.join(word.capitalize() for word in rest)}={value}")
        put("config", f"all-keys-{name}", "\n".join(lines).encode())
    put("config", "escapes", b"a\\ b\\:c = \\u0041\\uD83D\\uDE00 \\\n   next\\\\ \r\n! no\n#no\r=x\n\\u00e9:\\t\\n")
    put("config", "latin1", b"brokerName=caf\xe9\nlistenPort = 10911 \n")
    put("config", "live", b"flushDiskType=SYNC_FLUSH\nbrokerPermission=4\nmaxMessageSize=1024\ndeleteWhen=04;05\nmessageDelayLevel=1s 5s 1d\n")
    put("config", "wrong", b"messageDelayLevel=1x 99999999999999999999d\nlistenPort=-1\ndLegerPeers=n0-a:1;n1-b;;\n")


def stores():
    t = lambda body, queue=0, offset=8, **more: record(body, "T", queue, offset, **more)
    put("store", "nothing-checkpoint", b"\x00")
    put("store", "good-record", b"\x02" + t(b"next"))
    put("store", "two-queues", b"\x02" + t(b"next") + t(b"other", 1, 4) + t(b"again", 0, 9))
    put("store", "hole", b"\x02" + t(b"far", offset=1000))
    put("store", "hole-no-checkpoint", b"\x03" + t(b"far", offset=1000))
    put("store", "huge-offset", b"\x03" + t(b"far", offset=(1 << 58) - 1))
    put("store", "new-queue", b"\x02" + t(b"new", 1 << 19, 0))
    put("store", "crash-topic-path", b"\x02" + record(b"out", "../../../tmp/quorate-fuzz-out", 0, 0))
    put("store", "blank", b"\x00" + struct.pack(">II", 1000, 0xCBD43194))
    put("store", "garbage-and-segment", b"\x0a" + t(b"next") + b"\xff" * 300)
    put("store", "clean", b"\x06" + t(b"next"))
    put("store", "transaction", b"\x02" + t(b"half", flags=0x4) + t(b"rolled back", flags=0xC))
    put("entries", "nothing", b"\x08")
    put("entries", "garbage", b"\x09" + b"\x00\x01" * 300)
    op = lambda kind, term, shift, names, command, messages, queue, more: bytes([kind, term, shift, names, len(command), len(messages), queue, more]) + command + messages
    put("entries", "made", b"\x02" + op(1, 1, 8, 0, b"", b"body", 0, 64) + op(0, 2, 0, 0, b"", b"", 0, 0) + op(2, 2, 0, 1, b"", b"", 0, 0))
    put("entries", "made-no-records", b"\x0a" + op(1, 1, 8, 0, b"abc", b"not a record", 0, 0))
    put("entries", "made-huge-queue", b"\x02" + op(1, 1, 0, 0, b"", b"body of a queue.........", 255, 64))
    put("entries", "made-later-term", b"\x03" + op(1, 255, 9, 3, b"", b"x", 1, 120))
    put("entries", "old-entry", b"\x08" + entry(12, 1, 6000, 5, messages=t(b"m", position=6200)))
    for which in range(5):
        put("derived", f"file-{which}-zero", bytes([which, 0, 0, 0]) + bytes(60))
        put("derived", f"file-{which}-ones", bytes([which, 1, 0, 0]) + b"\xff" * 100)
        put("derived", f"raft-{which}", bytes([which | 128, 0, 0, 20]) + struct.pack(">QIq", 1 << 62, 0x7FFFFFFF, -1) * 3)
    queue = lambda *entries: b"".join(struct.pack(">qIq", *entry) for entry in entries)
    put("derived", "queue-of-nowhere", bytes([1, 1, 0, 0]) + queue((0, 100, 0), (1 << 61, 100, 0)))
    put("derived", "crash-checkpoint-time", bytes([0, 1, 0, 0]) + struct.pack(">qqq", -(1 << 63), 5, 6))
    head = struct.pack(">qqqqii", -(1 << 63), 1 << 62, 0, 99, 1, 40)
    slots = struct.pack(">I", 30) * 16
    loop = struct.pack(">IQII", 5, 400, 0xFFFFFFFF, 30) * 63
    put("derived", "index-loop", bytes([3, 0, 0, 0]) + head + slots + loop)


def raft():
    target = field(1, b"g") + field(2, 1) + field(3, 2)
    one, two = entry(4, 3, 4096, 9, messages=record(b"m", position=4250)), entry(5, 3, 4500, 8, kind=0)
    samples = {
        "vote": bytes([0]) + field(1, target) + field(2, vote(4, 1, False)) + field(3, log_id(3, 9)) + field(4, 1),
        "vote-of-leader": bytes([0]) + field(2, vote(4, 1, True)),
        "vote-answer": bytes([1]) + field(1, vote(5, 1, True)) + field(2, 1) + field(3, log_id(3, 9)),
        "append": bytes([2]) + field(1, target) + field(2, vote(3, 1, True)) + field(3, log_id(2, 3)) + field(4, log_id(2, 3)) + field(5, one) + field(5, two),
        "heartbeat": bytes([2]) + field(2, vote(3, 1, True)) + field(3, log_id(2, (1 << 64) - 1)),
        "append-answer": bytes([3]) + field(1, field(1, log_id(3, 9))),
        "conflict": bytes([3]) + field(2, log_id(3, 9)),
        "higher-vote": bytes([3]) + field(3, vote(9, 3, False)),
        "snapshot": bytes([4]) + field(1, target) + field(2, vote(3, 1, True)) + field(3, log_id(2, 3)) + field(4, log_id(1, 0)) + field(5, THREE) + field(6, 77),
        "snapshot-joint": bytes([4]) + field(2, vote(3, 1, True)) + field(5, JOINT),
        "snapshot-answer": bytes([5]) + field(1, vote(3, 1, True)),
        "transfer": bytes([6]) + field(1, target) + field(2, vote(3, 1, True)) + field(3, log_id(2, 3)) + field(4, 2),
        "transfer-refused": bytes([7]) + field(1, field(1, vote(3, 1, True)) + field(2, vote(4, 2, False))),
        "not-flushed": bytes([7]) + field(2, field(1, log_id(3, 9))),
        "hello": bytes([8]) + field(1, bytes(16)) + field(2, 1) + field(3, field(1, 1) + field(2, b"a:1") + field(3, bytes(16)) + field(4, 1)) + field(4, b"h:1"),
    }
    for name, data in samples.items():
        put("raft_message", name, data)
    put("raft_entry", "messages", one)
    put("raft_entry", "blank", two)
    put("raft_entry", "changes", entry(6, 3, 4800, 7, command=commands(COMMANDS)))
    put("raft_entry", "members", entry(7, 3, 5800, 6, kind=2, command=THREE))
    put("raft_entry", "joint", JOINT)
    put("raft_entry", "forgotten", entry(8, 3, 5900, 6, names=[b"T", b"../commitlog", b""], command=commands(COMMANDS[1:2])))
    put("raft_entry", "no-voters", members([], [(0, b"a:1")]))
    put("raft_file", "vote", bytes([0]) + struct.pack("<QQQB", 3, 7, 1, 1))
    put("raft_file", "replica", bytes([1]) + text(b"g") + struct.pack("<QQQB", 1, 5, 6, 1))
    put("raft_file", "committed", bytes([2]) + struct.pack("<QQ", 3, 9))
    put("raft_file", "barrier", bytes([3]) + struct.pack("<Q", 9))
    id = struct.pack("<BQQ", 1, 3, 9)
    tables = text(b'{"dataVersion":{},"topicConfigTable":{"T":' + TOPIC + b"}}") + text(b'{"subscriptionGroupTable":{"G":' + GROUP + b'},"forbiddenTable":{"G":{"T":1}}}')
    tables += text(b'{"offsetTable":{"T@G":{0:9,1:2}}}') + text(b'{"offsetTable":{2:5}}') + text(b"{}")
    queues = struct.pack("<Q", 1) + text(b"T") + struct.pack("<QQQ", 2, 0, 9)
    forgotten = struct.pack("<Q", 1) + text(b"D") + struct.pack("<Q", 4096)
    image = id + struct.pack("<IQQ", 5, 8192, 4096) + id + text(THREE) + tables + queues + forgotten
    put("raft_file", "image", bytes([4]) + image)
    put("raft_file", "image-empty", bytes([4]) + b"\0" + struct.pack("<IQQ", 0, 0, 4096) + b"\0" + text(members([], [])) + text(b"{}") * 5 + struct.pack("<QQ", 0, 0))
    for number, command in enumerate(COMMANDS):
        put("commands", f"one-{number}", commands([command]))
    put("commands", "all", commands(COMMANDS))
    put("commands", "count", b"\x01" + struct.pack("<Q", 1 << 60) + COMMANDS[1])


def filters():
    properties = b"\0a\x011\x02b\x01x\x02c\x011.5\x02"
    samples = {
        "order": "a > 0 AND a >= 1L OR c < 2.5 AND c <= 1.5e0",
        "equal": "a = 1 AND b <> 'y' AND (c = 1.5) = TRUE",
        "between": "a BETWEEN -1 AND 2 AND c NOT BETWEEN 2 AND 3",
        "in": "b IN ('x', 'it''s') OR b NOT IN ('')",
        "search": "b CONTAINS 'x' AND b NOT STARTSWITH 'y' AND b ENDSWITH 'x'",
        "null": "d IS NULL AND a IS NOT NULL AND NOT NULL",
        "signs": "NOT - - +a > 1 -- comment\n /* another */",
        "deep": "(" * 190 + "TRUE" + ")" * 190,
        "unknown": "a != 1",
    }
    for name, expression in samples.items():
        put("sql92", name, expression.encode() + properties)


remoting()
registration()
messages()
config()
filters()
stores()
raft()
