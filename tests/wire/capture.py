#!/usr/bin/env python3
"""Records the frames between RocketMQ clients and servers and sorts them into files. See README.md.

proxy CONTROL_PORT BIND_IP LINK...      LINK is listenHost:port=targetHost:port@name[:fixed-journal]
journal CONTROL_PORT FILE               tells the running proxy where further frames of free links go
extract JOURNAL OUTDIR [--only CODES] [--link NAME] [--suffix TEXT] [--skip CODES] [--max BYTES]
        [--client-language NAME] [--headers ROCKETMQ]
table DIR                               rewrites the table in DIR/README.md
show FILE...                            prints frames
"""
import asyncio
import base64
import json
import os
import socket
import struct
import sys

REQUEST_NAMES = {int(w.split()[0]): w.split()[1] for w in """
10 SEND_MESSAGE; 11 PULL_MESSAGE; 12 QUERY_MESSAGE; 13 QUERY_BROKER_OFFSET; 14 QUERY_CONSUMER_OFFSET; 15 UPDATE_CONSUMER_OFFSET; 
17 UPDATE_AND_CREATE_TOPIC; 18 UPDATE_AND_CREATE_TOPIC_LIST; 21 GET_ALL_TOPIC_CONFIG; 22 GET_TOPIC_CONFIG_LIST; 23 
GET_TOPIC_NAME_LIST; 25 UPDATE_BROKER_CONFIG; 26 GET_BROKER_CONFIG; 27 TRIGGER_DELETE_FILES; 28 GET_BROKER_RUNTIME_INFO; 29 
SEARCH_OFFSET_BY_TIMESTAMP; 30 GET_MAX_OFFSET; 31 GET_MIN_OFFSET; 32 GET_EARLIEST_MSG_STORETIME; 33 VIEW_MESSAGE_BY_ID; 34 
HEART_BEAT; 35 UNREGISTER_CLIENT; 36 CONSUMER_SEND_MSG_BACK; 37 END_TRANSACTION; 38 GET_CONSUMER_LIST_BY_GROUP; 39 
CHECK_TRANSACTION_STATE; 40 NOTIFY_CONSUMER_IDS_CHANGED; 41 LOCK_BATCH_MQ; 42 UNLOCK_BATCH_MQ; 43 GET_ALL_CONSUMER_OFFSET; 45 
GET_ALL_DELAY_OFFSET; 46 CHECK_CLIENT_CONFIG; 47 GET_CLIENT_CONFIG; 60 GET_TIMER_CHECK_POINT; 61 GET_TIMER_METRICS; 100 
PUT_KV_CONFIG; 101 GET_KV_CONFIG; 102 DELETE_KV_CONFIG; 103 REGISTER_BROKER; 104 UNREGISTER_BROKER; 105 GET_ROUTEINFO_BY_TOPIC; 
106 GET_BROKER_CLUSTER_INFO; 200 UPDATE_AND_CREATE_SUBSCRIPTIONGROUP; 201 GET_ALL_SUBSCRIPTIONGROUP_CONFIG; 202 
GET_TOPIC_STATS_INFO; 203 GET_CONSUMER_CONNECTION_LIST; 204 GET_PRODUCER_CONNECTION_LIST; 205 WIPE_WRITE_PERM_OF_BROKER; 206 
GET_ALL_TOPIC_LIST_FROM_NAMESERVER; 207 DELETE_SUBSCRIPTIONGROUP; 208 GET_CONSUME_STATS; 209 SUSPEND_CONSUMER; 210 
RESUME_CONSUMER; 211 RESET_CONSUMER_OFFSET_IN_CONSUMER; 212 RESET_CONSUMER_OFFSET_IN_BROKER; 213 ADJUST_CONSUMER_THREAD_POOL; 214 
WHO_CONSUME_THE_MESSAGE; 215 DELETE_TOPIC_IN_BROKER; 216 DELETE_TOPIC_IN_NAMESRV; 217 REGISTER_TOPIC_IN_NAMESRV; 219 
GET_KVLIST_BY_NAMESPACE; 220 RESET_CONSUMER_CLIENT_OFFSET; 221 GET_CONSUMER_STATUS_FROM_CLIENT; 222 
INVOKE_BROKER_TO_RESET_OFFSET; 223 INVOKE_BROKER_TO_GET_CONSUMER_STATUS; 224 GET_TOPICS_BY_CLUSTER; 225 
UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST; 300 QUERY_TOPIC_CONSUME_BY_WHO; 301 REGISTER_FILTER_SERVER; 302 
REGISTER_MESSAGE_FILTER_CLASS; 303 QUERY_CONSUME_TIME_SPAN; 304 GET_SYSTEM_TOPIC_LIST_FROM_NS; 305 
GET_SYSTEM_TOPIC_LIST_FROM_BROKER; 306 CLEAN_EXPIRED_CONSUMEQUEUE; 307 GET_CONSUMER_RUNNING_INFO; 308 QUERY_CORRECTION_OFFSET; 
309 CONSUME_MESSAGE_DIRECTLY; 310 SEND_MESSAGE_V2; 311 GET_UNIT_TOPIC_LIST; 312 GET_HAS_UNIT_SUB_TOPIC_LIST; 313 
GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST; 314 CLONE_GROUP_OFFSET; 315 VIEW_BROKER_STATS_DATA; 316 CLEAN_UNUSED_TOPIC; 317 
GET_BROKER_CONSUME_STATS; 318 UPDATE_NAMESRV_CONFIG; 319 GET_NAMESRV_CONFIG; 320 SEND_BATCH_MESSAGE; 321 QUERY_CONSUME_QUEUE; 322 
QUERY_DATA_VERSION; 323 RESUME_CHECK_HALF_MESSAGE; 324 SEND_REPLY_MESSAGE; 325 SEND_REPLY_MESSAGE_V2; 326 
PUSH_REPLY_MESSAGE_TO_CLIENT; 327 ADD_WRITE_PERM_OF_BROKER; 328 GET_ALL_PRODUCER_INFO; 329 DELETE_EXPIRED_COMMITLOG; 343 
QUERY_TOPICS_BY_CONSUMER; 345 QUERY_SUBSCRIPTION_BY_CONSUMER; 351 GET_TOPIC_CONFIG; 352 GET_SUBSCRIPTIONGROUP_CONFIG; 353 
UPDATE_AND_GET_GROUP_FORBIDDEN; 354 CHECK_ROCKSDB_CQ_WRITE_PROGRESS; 355 EXPORT_ROCKSDB_CONFIG_TO_JSON; 361 LITE_PULL_MESSAGE; 
370 RECALL_MESSAGE; 400 QUERY_ASSIGNMENT; 401 SET_MESSAGE_REQUEST_MODE; 402 GET_ALL_MESSAGE_REQUEST_MODE; 513 
UPDATE_AND_CREATE_STATIC_TOPIC; 901 GET_BROKER_MEMBER_GROUP; 902 ADD_BROKER; 903 REMOVE_BROKER; 904 BROKER_HEARTBEAT; 905 
NOTIFY_MIN_BROKER_ID_CHANGE; 906 EXCHANGE_BROKER_HA_INFO; 907 GET_BROKER_HA_STATUS; 908 RESET_MASTER_FLUSH_OFFSET; 1001 
CONTROLLER_ALTER_SYNC_STATE_SET; 1002 CONTROLLER_ELECT_MASTER; 1003 CONTROLLER_REGISTER_BROKER; 1004 CONTROLLER_GET_REPLICA_INFO; 
1005 CONTROLLER_GET_METADATA_INFO; 1006 CONTROLLER_GET_SYNC_STATE_DATA; 1007 GET_BROKER_EPOCH_CACHE; 1008 
NOTIFY_BROKER_ROLE_CHANGED; 1009 UPDATE_CONTROLLER_CONFIG; 1010 GET_CONTROLLER_CONFIG; 1011 CLEAN_BROKER_DATA; 1012 
CONTROLLER_GET_NEXT_BROKER_ID; 1013 CONTROLLER_APPLY_BROKER_ID; 2001 UPDATE_COLD_DATA_FLOW_CTR_CONFIG; 2002 
REMOVE_COLD_DATA_FLOW_CTR_CONFIG; 2003 GET_COLD_DATA_FLOW_CTR_INFO; 2004 SET_COMMITLOG_READ_MODE; 3001 AUTH_CREATE_USER; 3002 
AUTH_UPDATE_USER; 3003 AUTH_DELETE_USER; 3004 AUTH_GET_USER; 3005 AUTH_LIST_USER; 3006 AUTH_CREATE_ACL; 3007 AUTH_UPDATE_ACL; 
3008 AUTH_DELETE_ACL; 3009 AUTH_GET_ACL; 3010 AUTH_LIST_ACL; 5001 SWITCH_TIMER_ENGINE; 200050 POP_MESSAGE; 200051 ACK_MESSAGE; 
200052 PEEK_MESSAGE; 200053 CHANGE_MESSAGE_INVISIBLETIME; 200054 NOTIFICATION; 200055 POLLING_INFO; 200056 POP_ROLLBACK; 200070 
POP_LITE_MESSAGE; 200071 LITE_SUBSCRIPTION_CTL; 200072 ACK_LITE_MESSAGE; 200073 NOTIFY_UNSUBSCRIBE_LITE; 200074 
GET_BROKER_LITE_INFO; 200075 GET_PARENT_TOPIC_INFO; 200076 GET_LITE_TOPIC_INFO; 200077 GET_LITE_CLIENT_INFO; 200078 
GET_LITE_GROUP_INFO; 200079 TRIGGER_LITE_DISPATCH; 200151 BATCH_ACK_MESSAGE; 
""".replace("\n", " ").split(";") if w.strip()}

RESPONSE_NAMES = {
    1: "system-error", 2: "system-busy", 3: "not-supported", 13: "message-illegal", 16: "no-permission",
    17: "topic-not-exist", 19: "not-found", 20: "retry-immediately", 21: "offset-moved", 22: "query-not-found",
    23: "subscription-parse-failed", 24: "subscription-not-exist", 25: "subscription-not-latest",
    26: "group-not-exist", 28: "filter-data-not-latest", 29: "invalid-parameter", 206: "consumer-not-online", 207: "consume-timeout",
    208: "no-message", 209: "polling-full", 210: "polling-timeout",
}


# ---- frames ----------------------------------------------------------------------------------------------------------

def decode(frame):
    """The header of a whole frame as a dict, with the raw body; both header encodings."""
    header_len = struct.unpack_from(">I", frame, 4)[0]
    kind, header_len = header_len >> 24, header_len & 0xFFFFFF
    header, body = frame[8:8 + header_len], frame[8 + header_len:]
    if kind == 0:
        h = json.loads(header)
        h["binary"] = False
    else:
        code, lang, version, opaque, flag, n = struct.unpack_from(">hBhiii", header, 0)
        at = 17
        h = {"code": code, "version": version, "opaque": opaque, "flag": flag, "binary": True, "extFields": {}}
        if n:
            h["remark"] = header[at:at + n].decode()
        at += n + 4
        while at < len(header):
            n = struct.unpack_from(">h", header, at)[0]
            key = header[at + 2:at + 2 + n].decode()
            at += 2 + n
            n = struct.unpack_from(">i", header, at)[0]
            h["extFields"][key] = header[at + 4:at + 4 + n].decode()
            at += 4 + n
    h["body"] = body
    h["ext"] = h.get("extFields") or {}
    return h


# ---- the proxy -------------------------------------------------------------------------------------------------------

class Proxy:
    def __init__(self, bind_ip):
        self.bind_ip = bind_ip
        self.free = None
        self.files = {}
        self.connections = 0

    def record(self, link, connection, direction, frame):
        name, _, fixed = link.partition(":")
        path = fixed or self.free
        if not path:
            return
        if path not in self.files:
            self.files[path] = open(path, "a", buffering=1)
        self.files[path].write(json.dumps(
            {"link": name, "conn": connection, "dir": direction, "frame": base64.b64encode(frame).decode()}) + "\n")

    async def pump(self, reader, writer, link, connection, direction):
        """Passes bytes on as they come and cuts a copy of them into frames."""
        pending = b""
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                pending += data
                while len(pending) >= 4 and len(pending) >= 4 + (n := struct.unpack_from(">I", pending)[0]):
                    self.record(link, connection, direction, pending[:4 + n])
                    pending = pending[4 + n:]
        except (ConnectionError, OSError):
            pass
        finally:
            writer.close()

    def acceptor(self, host, port, link):
        async def accepted(reader, writer):
            self.connections += 1
            connection = self.connections
            try:
                there_reader, there_writer = await asyncio.open_connection(host, port, local_addr=(self.bind_ip, 0))
            except OSError:
                writer.close()
                return
            for w in (writer, there_writer):
                w.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self.pump(reader, there_writer, link, connection, "c2s"),
                                 self.pump(there_reader, writer, link, connection, "s2c"))
        return accepted

    async def control(self, reader, writer):
        line = await reader.readline()
        if line:  # a probe of the port says nothing
            self.free = line.decode().strip() or None
        writer.write(b"ok\n")
        await writer.drain()
        writer.close()

    async def run(self, control_port, links):
        await asyncio.start_server(self.control, "127.0.0.1", control_port)
        for spec in links:
            where, link = spec.split("@", 1)
            here, there = where.split("=")
            host, port = there.rsplit(":", 1)
            listen_host, listen_port = here.rsplit(":", 1)
            await asyncio.start_server(self.acceptor(host, int(port), link), listen_host, int(listen_port))
        await asyncio.sleep(float(os.environ.get("WIRE_PROXY_SECONDS", "1200")))


# ---- sorting ---------------------------------------------------------------------------------------------------------

def json_body(frame):
    try:
        return json.loads(frame["body"])
    except ValueError:
        return {}


def heartbeat_variant(body):
    parts = []
    consumers = body.get("consumerDataSet") or []
    if consumers:
        c = consumers[0]
        subs = [s for s in c.get("subscriptionDataSet") or [] if not s.get("topic", "").startswith("%RETRY%")]
        parts.append("push" if c.get("consumeType") in ("CONSUME_PASSIVELY", "CONSUME_POP") else "pull")
        if c.get("messageModel") == "BROADCASTING":
            parts.append("broadcast")
        if any(s.get("expressionType") == "SQL92" for s in subs):
            parts.append("sql92")
        elif any(s.get("subString") not in (None, "", "*") for s in subs):
            parts.append("tags")
        if len(consumers) > 1:
            parts.append("many")
        if not subs:
            parts.append("no-subscription")
    if [p for p in body.get("producerDataSet") or [] if consumers == [] or p.get("groupName") != "CLIENT_INNER_PRODUCER"]:
        parts.append("producer")
    if not parts:
        parts.append("empty")
    if body.get("heartbeatFingerprint"):
        parts.append("v2")
    if body.get("withoutSub"):
        parts.append("without-sub")
    return "-".join(parts)


def properties_of(text):
    return dict(p.split("\x01", 1) for p in text.split("\x02") if "\x01" in p)


def send_variant(h):
    e = h["ext"]
    v1 = "producerGroup" in e
    topic = e.get("topic" if v1 else "b", "")
    flag = int(e.get("sysFlag" if v1 else "f", "0"))
    p = properties_of(e.get("properties" if v1 else "i", ""))
    parts = []
    if topic.startswith("%RETRY%"):
        parts.append("retry-topic")
    if topic == "RMQ_SYS_TRACE_TOPIC":
        parts.append("trace")
    if flag & 4:
        parts.append("half")
    if flag & 1:
        parts.append("compressed")
    if "DELAY" in p:
        parts.append("delay")
    if any(k.startswith("TIMER_") for k in p):
        parts.append("timer")
    if p.get("CORRELATION_ID") and h["code"] not in (324, 325):
        parts.append("rpc")
    if p.get("__SHARDINGKEY"):
        parts.append("sharding-key")
    return "-".join(parts)


def variant(h, r, direction):
    """What kind of exchange this is, apart from its code. h is the request, r the response or None."""
    code, e = h["code"], h["ext"]
    v = []
    if code == 34:
        v.append(heartbeat_variant(json_body(h)))
    elif code in (10, 310, 320, 324, 325):
        v.append(send_variant(h))
    elif code in (11, 361):
        flag = int(e.get("sysFlag", "0"))
        if e.get("expressionType") == "SQL92":
            v.append("sql92")
        if r is not None and r["code"] == 0:
            v.append("found")
        # held and answered late, or answered at once
        elif r is not None and r["code"] == 19 and flag & 2:
            v.append("held")
        if flag & 1:
            v.append("commit")
        if code == 11 and flag & 4:
            v.append("subscription")
    elif code == 35:
        v.append("consumer" if e.get("consumerGroup") else "producer")
    elif code == 37:
        v.append({"8": "commit", "12": "rollback", "0": "unknown"}.get(e.get("commitOrRollback"), ""))
        if e.get("fromTransactionCheck") == "true":
            v.append("from-check")
    elif code == 12:
        v.append("unique-key" if e.get("_UNIQUE_KEY_QUERY") == "true" or e.get("indexType") == "U" else "")
    elif code == 36:
        v.append("dlq" if int(e.get("delayLevel", "0")) < 0 else "")
    elif code in (307, 309, 220, 221):
        v.append("to-client" if direction == "s2c" else "to-broker")
        if code == 307 and e.get("jstackEnable") == "true":
            v.append("jstack")
    elif code == 200050:
        v.append("order" if e.get("order") == "true" else "")
    elif code == 103:
        v.append("slave" if e.get("brokerId") not in (None, "0") else "")
        v.append("told-master" if r is not None and r["ext"].get("masterAddr") else "")
        n = len((json_body(h).get("topicConfigSerializeWrapper") or {}).get("topicConfigTable") or {})
        v.append("increment" if 0 < n < 4 else "")
        v.append("acting-master" if e.get("enableActingMaster") == "true" else "")
    elif code == 322:
        v.append("changed" if r is not None and r["ext"].get("changed") == "true" else "")
    if h.get("flag", 0) & 2 and code in (10, 310, 320, 15):
        v.append("oneway")
    if r is not None and r["code"] != 0:
        v.append(RESPONSE_NAMES.get(r["code"], "code-%d" % r["code"]))
    return "-".join(x for x in v if x)


def exchanges(path):
    """(direction, link, request, request frame, response, response frame), in the order of the requests."""
    out, waiting = [], {}
    for line in open(path):
        j = json.loads(line)
        frame = base64.b64decode(j["frame"])
        try:
            h = decode(frame)
        except (ValueError, struct.error) as error:
            print("undecodable frame on", j["link"], error, file=sys.stderr)
            continue
        if h.get("flag", 0) & 1:
            request_dir = "s2c" if j["dir"] == "c2s" else "c2s"
            entry = waiting.pop((j["conn"], request_dir, h["opaque"]), None)
            if entry is not None:
                entry[4:6] = [h, frame]
        else:
            entry = [j["dir"], j["link"], h, frame, None, None]
            out.append(entry)
            waiting[(j["conn"], j["dir"], h["opaque"])] = entry
    return out


def extract(args):
    journal, out_dir = args[:2]
    options = dict(zip(args[2::2], args[3::2]))
    only = {int(c) for c in options.get("--only", "").split(",") if c}
    skip = {int(c) for c in options.get("--skip", "").split(",") if c}
    suffix, link_wanted = options.get("--suffix", ""), options.get("--link")
    largest = int(options.get("--max", "4608"))
    os.makedirs(out_dir, exist_ok=True)
    best = {}
    for direction, link, h, frame, r, response in exchanges(journal):
        code = h["code"]
        if (only and code not in only) or code in skip or (link_wanted and link != link_wanted):
            continue
        if r is None and not h.get("flag", 0) & 2:
            continue  # no answer within the run (held pulls at its end)
        if options.get("--client-language") and direction == "c2s" and h.get("language") != options["--client-language"]:
            continue
        if options.get("--headers") == "ROCKETMQ" and not h["binary"]:
            continue
        v = variant(h, r, direction) + suffix
        size = max(len(frame), len(response or b""))
        # the first that is small enough; among too large ones the smallest
        key, old = (code, v), best.get((code, v))
        if old is None or (old[0] > largest and size < old[0]):
            best[key] = (size, frame, response)
    for (code, v), (size, frame, response) in sorted(best.items()):
        name = "%04d-%s" % (code, REQUEST_NAMES.get(code, "UNKNOWN"))
        tail = ("-" + v.strip("-") if v.strip("-") else "") + ".bin"
        for kind, data in (("request", frame), ("response", response)):
            if data is None:
                continue
            if len(data) > 4 * largest:
                print("left out, %d bytes: %s-%s%s" % (len(data), name, kind, tail), file=sys.stderr)
                continue
            with open(os.path.join(out_dir, "%s-%s%s" % (name, kind, tail)), "wb") as f:
                f.write(data)
    print("%s: %d kinds of exchange" % (out_dir, len(best)))


COLUMNS = [("java-5.5.0", ""), ("java-5.5.0", "-binary"), ("java-4.9.8", ""), ("go-2.1.2", "")]


def table(folder):
    """Rewrites the table of README.md: a row per kind of exchange, request and response bytes per client."""
    rows = {}
    for column, (directory, wanted) in enumerate(COLUMNS):
        for name in sorted(os.listdir(os.path.join(folder, directory))):
            stem, extension = os.path.splitext(name)
            if extension != ".bin" or stem.endswith("-binary") != bool(wanted):
                continue
            stem = stem[:-len(wanted)] if wanted else stem
            code, rest = stem.split("-", 1)
            code_name, _, rest = rest.partition("-")
            kind, _, tail = rest.partition("-")
            cell = rows.setdefault((int(code), code_name, tail), [["", ""] for _ in COLUMNS])[column]
            cell[kind == "response"] = str(os.path.getsize(os.path.join(folder, directory, name)))
    lines = ["| code | name | variant | " + " | ".join(d.replace("-", " ") + k.replace("-", " ") for d, k in COLUMNS) + " |",
             "|---|---|---|" + "---|" * len(COLUMNS)]
    for (code, name, tail), cells in sorted(rows.items()):
        shown = ["" if c == ["", ""] else c[0] + (" / " + c[1] if c[1] else " one-way") for c in cells]
        lines.append("| %d | %s | %s | %s |" % (code, name, tail, " | ".join(shown)))
    path = os.path.join(folder, "README.md")
    with open(path) as f:
        text = f.read()
    head = text[:text.index("| code | name |")]
    with open(path, "w") as f:
        f.write(head + "\n".join(lines) + "\n")


def show(paths):
    for path in paths:
        with open(path, "rb") as f:
            h = decode(f.read())
        body = h.pop("body")
        h.pop("ext")
        print(os.path.basename(path), json.dumps(h, ensure_ascii=False))
        if body:
            print("   ", body[:2000])


def main():
    command, args = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "proxy":
        asyncio.run(Proxy(args[1]).run(int(args[0]), args[2:]))
    elif command == "journal":
        with socket.create_connection(("127.0.0.1", int(args[0])), 5) as s:
            s.sendall((args[1] if len(args) > 1 else "").encode() + b"\n")
            s.recv(16)
    elif command == "extract":
        extract(args)
    elif command == "table":
        table(args[0])
    elif command == "show":
        show(args)
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(2)


main()
