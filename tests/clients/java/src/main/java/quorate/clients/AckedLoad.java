package quorate.clients;

import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Writes down what a cluster acknowledged, and later looks whether all of it is there.
 *
 * <pre>
 * send NS TOPIC THREADS OUTFILE [size]    until SIGTERM or the end of stdin; a line `key queueId queueOffset offsetMsgId` per SEND_OK
 * verify NS TOPIC OUTFILE [seconds]       reads every queue from its first to its last offset and compares
 * roundtrip NS TOPIC N                    sends N messages and consumes them with a push consumer
 * </pre>
 */
public final class AckedLoad {
    /** A send that takes longer than this is given up; its key is never used again, so no message is sent twice. */
    static final int SEND_TIMEOUT_MS = Integer.getInteger("acked.timeout", 2000);
    static final int BACK_OFF_MS = 5;
    static final int EXAMPLES = 5;

    private AckedLoad() {
    }

    public static void main(String[] args) throws Exception {
        // 4.x and 5.x name these settings differently
        for (String name : new String[] {"rocketmq.client.logRoot", "rocketmq.log.root"}) {
            System.getProperties().putIfAbsent(name, System.getProperty("java.io.tmpdir") + "/quorate-clients-logs");
        }
        for (String name : new String[] {"rocketmq.client.logLevel", "rocketmq.log.level"}) {
            System.getProperties().putIfAbsent(name, "WARN");
        }
        String what = args.length > 0 ? args[0] : "";
        int code;
        if (what.equals("send") && args.length >= 5) {
            code = send(args[1], args[2], Integer.parseInt(args[3]), Path.of(args[4]), args.length > 5 ? Integer.parseInt(args[5]) : 256);
        } else if (what.equals("verify") && args.length >= 4) {
            code = new Verification(args[1], args[2], Path.of(args[3]), args.length > 4 ? Integer.parseInt(args[4]) : 60).run();
        } else if (what.equals("roundtrip") && args.length >= 4) {
            code = roundtrip(args[1], args[2], Integer.parseInt(args[3]));
        } else {
            System.err.println("usage: send NS TOPIC THREADS OUTFILE [size] | verify NS TOPIC OUTFILE [seconds] | roundtrip NS TOPIC N");
            code = 2;
        }
        System.out.flush();
        // client threads need not end
        Runtime.getRuntime().halt(code);
    }

    static <T extends ClientConfig> T dress(T c, String ns) {
        c.setNamesrvAddr(ns);
        c.setInstanceName("acked-" + ProcessHandle.current().pid() + "-" + System.nanoTime());
        c.setPollNameServerInterval(200);
        c.setHeartbeatBrokerInterval(1000);
        c.setVipChannelEnabled(false);
        return c;
    }

    static String runName() {
        return Long.toString(System.currentTimeMillis(), 36);
    }

    // ---- bodies --------------------------------------------------------------------------------------------------------

    /** `key filler crc`, where crc is of all that stands before it. */
    static byte[] body(String key, int size) {
        StringBuilder b = new StringBuilder(key).append(' ');
        long x = key.hashCode() * 0x9E3779B97F4A7C15L;
        while (b.length() < size - 9) {
            x ^= x << 13;
            x ^= x >>> 7;
            x ^= x << 17;
            b.append((char) ('a' + Long.remainderUnsigned(x, 26)));
        }
        b.append(' ');
        byte[] head = b.toString().getBytes(StandardCharsets.US_ASCII);
        byte[] crc = String.format("%08x", crc(head, head.length)).getBytes(StandardCharsets.US_ASCII);
        byte[] all = java.util.Arrays.copyOf(head, head.length + crc.length);
        System.arraycopy(crc, 0, all, head.length, crc.length);
        return all;
    }

    static boolean intact(byte[] body, String key) {
        if (body == null || body.length < 10) {
            return false;
        }
        int head = body.length - 8;
        String crc = new String(body, head, 8, StandardCharsets.US_ASCII);
        String start = new String(body, 0, Math.min(head, key.length() + 1), StandardCharsets.US_ASCII);
        return start.equals(key + " ") && crc.equals(String.format("%08x", crc(body, head)));
    }

    static long crc(byte[] b, int n) {
        CRC32 c = new CRC32();
        c.update(b, 0, n);
        return c.getValue();
    }

    // ---- send ----------------------------------------------------------------------------------------------------------

    static volatile boolean stopping;

    static int send(String ns, String topic, int threads, Path outFile, int size) throws Exception {
        DefaultMQProducer producer = dress(new DefaultMQProducer("acked_load"), ns);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
        producer.setMqClientApiTimeout(1000);
        FileOutputStream out = new FileOutputStream(outFile.toFile(), true);
        String run = runName();
        AtomicLong acked = new AtomicLong();
        AtomicLong failed = new AtomicLong();
        AtomicLong other = new AtomicLong();
        while (true) {
            try {
                producer.start();
                break;
            } catch (Exception e) {
                System.err.println("start: " + e.getMessage());
                Thread.sleep(100);
            }
        }
        List<Thread> all = new ArrayList<>();
        for (int i = 0; i < threads; i++) {
            String prefix = run + "-" + i + "-";
            Thread t = new Thread(() -> {
                for (long seq = 0; !stopping; seq++) {
                    String key = prefix + seq;
                    try {
                        SendResult r = producer.send(new Message(topic, "acked", key, body(key, size)));
                        boolean ok = r.getSendStatus() == SendStatus.SEND_OK;
                        String line = (ok ? "" : "#status " + r.getSendStatus() + " ") + key + " " + r.getMessageQueue().getQueueId() + " "
                            + r.getQueueOffset() + " " + r.getOffsetMsgId() + "\n";
                        synchronized (out) {
                            out.write(line.getBytes(StandardCharsets.US_ASCII));
                        }
                        if ((ok ? acked : other).incrementAndGet() == 1 && ok) {
                            System.out.println("acknowledged first " + System.currentTimeMillis());
                        }
                    } catch (IOException e) {
                        System.err.println("cannot write " + outFile + ": " + e);
                        Runtime.getRuntime().halt(3);
                    } catch (Exception e) {
                        if (failed.incrementAndGet() % 1000 == 1) {
                            System.err.println(System.currentTimeMillis() + " " + String.valueOf(e.getMessage()).split("\n")[0]);
                        }
                        try {
                            Thread.sleep(BACK_OFF_MS);
                        } catch (InterruptedException stop) {
                            return;
                        }
                    }
                }
            }, "send-" + i);
            t.start();
            all.add(t);
        }
        Runnable end = () -> {
            stopping = true;
            try {
                for (Thread t : all) {
                    t.join(SEND_TIMEOUT_MS + 2000L);
                }
                out.close();
            } catch (Exception e) {
                System.err.println(e);
            }
            System.out.println("{\"acked\":" + acked + ",\"failed\":" + failed + ",\"otherStatus\":" + other + "}");
            System.out.flush();
            Runtime.getRuntime().halt(0);
        };
        Runtime.getRuntime().addShutdownHook(new Thread(end));
        while (System.in.read() >= 0) {
            // input is only waited for
        }
        System.exit(0);
        return 0;
    }

    // ---- verify --------------------------------------------------------------------------------------------------------

    static final class Acked {
        final String key;
        final int queueId;
        final long offset;
        final String id;

        Acked(String[] f) {
            key = f[0];
            queueId = Integer.parseInt(f[1]);
            offset = Long.parseLong(f[2]);
            id = f[3];
        }
    }

    static final class Verification {
        final String ns;
        final String topic;
        final Path file;
        final long end;
        final Map<String, Acked> acked = new HashMap<>();
        /** key -> places `broker/queue/offset` where it was read. */
        final Map<String, List<String>> places = new HashMap<>();
        final Set<String> corruptKeys = new HashSet<>();
        final Map<String, Integer> shown = new TreeMap<>();
        long read;
        long holes;
        long corrupt;
        long wrongIds;

        Verification(String ns, String topic, Path file, int seconds) {
            this.ns = ns;
            this.topic = topic;
            this.file = file;
            this.end = System.currentTimeMillis() + seconds * 1000L;
        }

        void example(String kind, String what) {
            if (shown.merge(kind, 1, Integer::sum) <= EXAMPLES) {
                System.err.println(kind + ": " + what);
            }
        }

        interface Ask<T> {
            T ask() throws Exception;
        }

        /** Asks again until the time is over; a cluster that was just killed needs a moment. */
        <T> T patiently(String what, Ask<T> a) throws Exception {
            while (true) {
                try {
                    return a.ask();
                } catch (Exception e) {
                    if (System.currentTimeMillis() > end) {
                        throw new IllegalStateException("no answer in time: " + what, e);
                    }
                    Thread.sleep(100);
                }
            }
        }

        int run() throws Exception {
            long others = 0;
            for (String line : Files.readAllLines(file, StandardCharsets.US_ASCII)) {
                if (line.startsWith("#")) {
                    others++;
                } else {
                    String[] f = line.split(" ");
                    if (f.length >= 4) {
                        acked.put(f[0], new Acked(f));
                    }
                }
            }
            DefaultMQPullConsumer c = dress(new DefaultMQPullConsumer("acked_verify"), ns);
            c.start();
            Set<MessageQueue> queues = patiently("route of " + topic, () -> c.fetchSubscribeMessageQueues(topic));
            for (MessageQueue q : queues) {
                readQueue(c, q);
            }
            long found = 0;
            long lost = 0;
            long misplaced = 0;
            long duplicates = 0;
            for (Acked a : acked.values()) {
                List<String> at = places.get(a.key);
                if (at == null) {
                    lost++;
                    example("lost", a.key + " acknowledged at queue " + a.queueId + " offset " + a.offset + " id " + a.id);
                } else if (at.stream().noneMatch(p -> p.endsWith("/" + a.queueId + "/" + a.offset))) {
                    misplaced++;
                    example("misplaced", a.key + " acknowledged at queue " + a.queueId + " offset " + a.offset + ", read at " + at);
                } else if (!corruptKeys.contains(a.key)) {
                    found++;
                }
            }
            long unacked = 0;
            for (Map.Entry<String, List<String>> e : places.entrySet()) {
                if (e.getValue().size() > 1) {
                    duplicates++;
                    example("duplicate", e.getKey() + " at " + e.getValue());
                }
                if (!acked.containsKey(e.getKey())) {
                    unacked++;
                }
            }
            System.out.println("{\"acked\":" + acked.size() + ",\"found\":" + found + ",\"lost\":" + lost + ",\"duplicates\":" + duplicates
                + ",\"misplaced\":" + misplaced + ",\"corrupt\":" + corrupt + ",\"holes\":" + holes + ",\"read\":" + read + ",\"readNotAcked\":"
                + unacked + ",\"otherStatus\":" + others + ",\"wrongOffsetIds\":" + wrongIds + "}");
            return lost + misplaced + corrupt + holes > 0 ? 1 : 0;
        }

        void readQueue(DefaultMQPullConsumer c, MessageQueue q) throws Exception {
            long min = patiently("min offset of " + q, () -> c.minOffset(q));
            long max = patiently("max offset of " + q, () -> c.maxOffset(q));
            long at = min;
            while (at < max) {
                long from = at;
                PullResult r = patiently("pull of " + q + " at " + at, () -> {
                    PullResult p = c.pull(q, "*", from, 32, 3000);
                    // within min..max there must be something; a member that has just taken over may not show it yet
                    if (p.getPullStatus() != PullStatus.FOUND && p.getNextBeginOffset() <= from && System.currentTimeMillis() <= end) {
                        throw new IllegalStateException(p.toString());
                    }
                    return p;
                });
                if (r.getPullStatus() != PullStatus.FOUND) {
                    long next = Math.max(r.getNextBeginOffset(), at + 1);
                    holes += Math.min(next, max) - at;
                    example("hole", q + " at " + at + ".." + next + ": " + r);
                    at = next;
                    continue;
                }
                for (MessageExt m : r.getMsgFoundList()) {
                    if (m.getQueueOffset() != at) {
                        holes += Math.max(1, m.getQueueOffset() - at);
                        example("hole", q + " expected offset " + at + ", got " + m.getQueueOffset());
                    }
                    at = m.getQueueOffset() + 1;
                    check(q, m);
                }
            }
        }

        void check(MessageQueue q, MessageExt m) {
            read++;
            String key = String.valueOf(m.getKeys());
            String place = q.getBrokerName() + "/" + m.getQueueId() + "/" + m.getQueueOffset();
            places.computeIfAbsent(key, k -> new ArrayList<>(1)).add(place);
            if (!intact(m.getBody(), key)) {
                corrupt++;
                corruptKeys.add(key);
                example("corrupt", key + " at " + place);
            }
            Acked a = acked.get(key);
            // the last 16 hex digits are the offset in the commit log
            if (a != null && a.id.length() >= 16 && a.queueId == m.getQueueId() && a.offset == m.getQueueOffset()
                && !a.id.substring(a.id.length() - 16).equalsIgnoreCase(String.format("%016X", m.getCommitLogOffset()))) {
                wrongIds++;
                example("wrong offset id", key + " acknowledged as " + a.id + ", stored at " + m.getCommitLogOffset());
            }
        }
    }

    // ---- round trip ----------------------------------------------------------------------------------------------------

    static int roundtrip(String ns, String topic, int n) throws Exception {
        String run = runName();
        long t0 = System.currentTimeMillis();
        long end = t0 + 60_000;
        DefaultMQProducer producer = dress(new DefaultMQProducer("roundtrip"), ns);
        producer.start();
        Set<String> want = new HashSet<>();
        int failed = 0;
        while (want.size() < n && System.currentTimeMillis() < end) {
            String key = run + "-0-" + (want.size() + failed);
            try {
                if (producer.send(new Message(topic, "roundtrip", key, body(key, 128))).getSendStatus() == SendStatus.SEND_OK) {
                    want.add(key);
                }
            } catch (Exception e) {
                if (failed++ % 100 == 0) {
                    System.err.println(String.valueOf(e.getMessage()).split("\n")[0]);
                }
                Thread.sleep(50);
            }
        }
        long sentAfter = System.currentTimeMillis() - t0;
        Map<String, AtomicLong> got = new ConcurrentHashMap<>();
        AtomicLong corrupt = new AtomicLong();
        DefaultMQPushConsumer c = dress(new DefaultMQPushConsumer("roundtrip_" + run), ns);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, "*");
        c.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
            for (MessageExt m : ms) {
                if (m.getKeys() != null && m.getKeys().startsWith(run)) {
                    got.computeIfAbsent(m.getKeys(), k -> new AtomicLong()).incrementAndGet();
                    if (!intact(m.getBody(), m.getKeys())) {
                        corrupt.incrementAndGet();
                    }
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        while (!got.keySet().containsAll(want) && System.currentTimeMillis() < end) {
            Thread.sleep(20);
        }
        long missing = want.stream().filter(k -> !got.containsKey(k)).count();
        long duplicates = got.values().stream().filter(x -> x.get() > 1).count();
        System.out.println("{\"sent\":" + want.size() + ",\"received\":" + (want.size() - missing) + ",\"duplicates\":" + duplicates + ",\"corrupt\":"
            + corrupt + ",\"failedSends\":" + failed + ",\"sentAfterMs\":" + sentAfter + ",\"doneAfterMs\":" + (System.currentTimeMillis() - t0) + "}");
        return want.size() == n && missing == 0 && corrupt.get() == 0 ? 0 : 1;
    }
}
