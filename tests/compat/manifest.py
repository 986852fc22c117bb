#!/usr/bin/env python3
"""Writes the manifest of a store: every record of its commit log, in order. usage: manifest.py STORE ACKED KIND CONFIG

ACKED holds what the producer was answered; each line must be found in the commit log, or this fails.
"""
import hashlib
import json
import os
import re
import struct
import sys
import zlib

MAGIC, MAGIC_V2, BLANK = 0xDAA320A7, 0xDAA320A8, 0xCBD43194


def records(folder):
    """(physical offset, fields) of each record; ends at the first bytes that are none."""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        start, at = int(name), 0
        while at + 8 <= len(data):
            size, magic = struct.unpack_from(">II", data, at)
            if magic == BLANK:
                break
            if magic not in (MAGIC, MAGIC_V2) or at + size > len(data):
                return
            crc, queue, flag, offset, physical, sys_flag, born = struct.unpack_from(">IIiQQiQ", data, at + 8)
            p = at + 48 + (20 if sys_flag & 0x10 else 8)
            stored = struct.unpack_from(">Q", data, p)[0]
            p += 8 + (20 if sys_flag & 0x20 else 8)
            reconsumed, prepared, n = struct.unpack_from(">iQi", data, p)
            p += 16
            body = data[p:p + n]
            p += n
            n, = struct.unpack_from(">B" if magic == MAGIC else ">H", data, p)
            p += 1 if magic == MAGIC else 2
            topic = data[p:p + n].decode()
            p += n
            n, = struct.unpack_from(">H", data, p)
            text = data[p + 2:p + 2 + n].decode()
            assert physical == start + at, (physical, start, at)
            assert not body or crc & 0x7FFFFFFF == zlib.crc32(body) & 0x7FFFFFFF, "body crc"
            props = dict(x.split("\x01", 1) for x in text.split("\x02") if "\x01" in x)
            yield physical, dict(size=size, queue=queue, offset=offset, flag=flag, sys_flag=sys_flag, born=born, stored=stored,
                                 reconsumed=reconsumed, prepared=prepared, body=body, topic=topic, props=props)
            at += size


def main():
    store, acked_file, kind, config = sys.argv[1:5]
    messages, places = [], {}
    for physical, r in records(os.path.join(store, "commitlog")):
        m = {"topic": r["topic"], "queueId": r["queue"], "queueOffset": r["offset"], "physicalOffset": physical, "size": r["size"]}
        if "KEYS" in r["props"]:
            m["key"] = r["props"]["KEYS"]
        if "TAGS" in r["props"]:
            m["tag"] = r["props"]["TAGS"]
        for name in ("flag", "sys_flag", "reconsumed"):
            if r[name]:
                m[{"flag": "flag", "sys_flag": "sysFlag", "reconsumed": "reconsumeTimes"}[name]] = r[name]
        if len(r["body"]) <= 64 and r["body"].isascii():
            m["body"] = r["body"].decode()
        else:
            m["bodySha256"] = hashlib.sha256(r["body"]).hexdigest()
        messages.append(m)
        places[(r["topic"], r["queue"], r["offset"])] = (physical, r["props"].get("KEYS", ""))
    with open(acked_file) as f:
        acked = [line.split() for line in f]
    for topic, queue, offset, msg_id, key in acked:
        physical, keys = places[(topic, int(queue), int(offset))]
        assert physical == int(msg_id[-16:], 16) and key in keys.split(), (topic, queue, offset, msg_id, key, physical, keys)
    with open(os.path.join(store, "config", "consumerOffset.json")) as f:
        offsets = json.loads(re.sub(r'([{,])\s*(\d+):', r'\1"\2":', f.read()))["offsetTable"]
    head = {
        "broker": "Apache RocketMQ 5.5.0, brokerName broker-a, " + ("stopped cleanly" if kind == "clean" else "kill -9 under load"),
        "config": dict(line.split("=", 1) for line in config.split("\\n")),
        "acknowledged": len(acked),
        "commitLogEnd": messages[-1]["physicalOffset"] + messages[-1]["size"],
        "consumerOffsets": offsets,
    }
    print("{")
    for name, value in head.items():
        print("%s: %s," % (json.dumps(name), json.dumps(value)))
    print('"messages": [')
    print(",\n".join(json.dumps(m, separators=(",", ":")) for m in messages))
    print("]\n}")


main()
