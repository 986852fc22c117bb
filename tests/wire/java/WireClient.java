import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Says every kind of request once through the recording proxy. capture.sh compiles it against both client versions. */
public final class WireClient {
    static String ns;
    static int failed;
    static final String TOPIC = "WireTopic";
    static final String ORDER_TOPIC = "WireOrderTopic";
    static final String TX_TOPIC = "WireTxTopic";
    static final String SMALL_TOPIC = "WireSmallTopic";

    interface Action {
        void run() throws Exception;
    }

    static void step(String name, Action a) {
        long t0 = System.currentTimeMillis();
        try {
            a.run();
            System.out.println("ok   " + name + " " + (System.currentTimeMillis() - t0));
        } catch (Throwable e) {
            failed++;
            System.out.println("FAIL " + name + " " + e);
        }
    }

    static void until(long ms, String what, Callable<Boolean> c) throws Exception {
        long end = System.currentTimeMillis() + ms;
        while (!c.call()) {
            if (System.currentTimeMillis() > end) {
                throw new IllegalStateException("not within " + ms + " ms: " + what);
            }
            Thread.sleep(50);
        }
    }

    /** The request may fail; its answer is what is wanted. */
    static void refused(Action a) {
        try {
            a.run();
        } catch (Exception e) {
            System.out.println("     refused as planned: " + String.valueOf(e.getMessage()).split("\n")[0]);
        }
    }

    static <T extends ClientConfig> T dress(T c, String instance) {
        c.setNamesrvAddr(ns);
        c.setClientIP("127.0.0.1");
        c.setInstanceName(instance);
        c.setVipChannelEnabled(false);
        return c;
    }

    static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    static Message msg(String topic, String tag, String key, String body) {
        return new Message(topic, tag, key, utf8(body));
    }

    static MessageListenerConcurrently counting(AtomicInteger n) {
        return (ms, c) -> {
            n.addAndGet(ms.size());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    static DefaultMQPushConsumer push(String group, String instance) {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        dress(c, instance);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setPersistConsumerOffsetInterval(1000);
        c.setPollNameServerInterval(1000);
        c.setConsumeThreadMin(1);
        c.setConsumeThreadMax(2);
        return c;
    }

    public static void main(String[] args) throws Exception {
        ns = args[0];
        DefaultMQAdminExt admin = dress(new DefaultMQAdminExt(8000L), "wire-admin");
        admin.setAdminExtGroup("wire_admin");
        admin.start();
        String[] broker = new String[2];
        step("cluster", () -> {
            var e = admin.examineBrokerClusterInfo().getBrokerAddrTable().entrySet().iterator().next();
            broker[0] = e.getKey();
            broker[1] = e.getValue().getBrokerAddrs().get(0L);
        });
        String addr = broker[1];
        step("topics and groups", () -> {
            for (String t : new String[] {TOPIC, ORDER_TOPIC, TX_TOPIC, SMALL_TOPIC}) {
                TopicConfig tc = new TopicConfig(t);
                tc.setReadQueueNums(1);
                tc.setWriteQueueNums(1);
                tc.setPerm(6);
                admin.createAndUpdateTopicConfig(addr, tc);
            }
            for (String g : new String[] {"wire_push", "wire_pull", "wire_empty"}) {
                SubscriptionGroupConfig sg = new SubscriptionGroupConfig();
                sg.setGroupName(g);
                sg.setRetryMaxTimes(1);
                admin.createAndUpdateSubscriptionGroupConfig(addr, sg);
            }
            refused(() -> admin.createAndUpdateTopicConfig(addr, new TopicConfig("bad topic name")));
            until(10_000, "routes", () -> {
                try {
                    return admin.examineTopicRouteInfo(SMALL_TOPIC).getQueueDatas().size() == 1;
                } catch (Exception e) {
                    return false;
                }
            });
        });
        List<SendResult> sent = new ArrayList<>();
        DefaultMQProducer producer = dress(new DefaultMQProducer("wire_producer"), "wire-producer");
        producer.setHeartbeatBrokerInterval(1000);
        producer.setCompressMsgBodyOverHowmuch(256);
        producer.start();
        step("send", () -> {
            Message full = msg(TOPIC, "TagA", "key-1 key-2", "hello wire");
            full.setFlag(7);
            full.putUserProperty("colour", "red");
            sent.add(producer.send(full));
            sent.add(producer.send(msg(TOPIC, "TagB", "key-3", "second")));
            producer.sendOneway(msg(TOPIC, "TagA", "key-4", "one-way"));
            producer.send(List.of(msg(TOPIC, "TagA", "key-5", "batch 1"), msg(TOPIC, "TagB", "key-6", "batch 2")));
            producer.send(msg(TOPIC, "TagA", "key-7", "all work and no play ".repeat(50)));
            Message late = msg(TOPIC, "TagA", "key-8", "delayed");
            late.setDelayTimeLevel(1);
            producer.send(late);
            producer.send(msg(ORDER_TOPIC, "TagA", "key-9", "ordered"), (qs, m, k) -> qs.get(0), "shard");
            producer.send(msg(SMALL_TOPIC, "TagA", "key-10", "for the pulls"));
            AtomicInteger done = new AtomicInteger();
            producer.send(msg(TOPIC, "TagA", "key-11", "async"), new SendCallback() {
                @Override
                public void onSuccess(SendResult r) {
                    done.incrementAndGet();
                }

                @Override
                public void onException(Throwable e) {
                    done.incrementAndGet();
                }
            });
            until(5000, "async answer", () -> done.get() == 1);
        });
        step("send refused", () -> {
            DefaultMQProducer p = dress(new DefaultMQProducer("wire_refused"), "wire-refused");
            p.setRetryTimesWhenSendFailed(0);
            p.setMaxMessageSize(8 << 20);
            p.start();
            // forbidden topic
            refused(() -> p.send(msg("SCHEDULE_TOPIC_XXXX", "", "", "x"), new MessageQueue("SCHEDULE_TOPIC_XXXX", broker[0], 0)));
            // no such queue
            refused(() -> p.send(msg(SMALL_TOPIC, "", "", "x"), new MessageQueue(SMALL_TOPIC, broker[0], 99)));
            // a topic that may not be made
            p.setCreateTopicKey("NoSuchTemplate");
            refused(() -> p.send(msg("WireNoTopic", "", "", "x")));
            p.shutdown();
        });
        step("producer heartbeat", () -> Thread.sleep(2500));
        DefaultMQPullConsumer pull = new DefaultMQPullConsumer("wire_pull");
        dress(pull, "wire-pull");
        pull.setHeartbeatBrokerInterval(1000);
        pull.start();
        MessageQueue[] q = new MessageQueue[1];
        step("pull", () -> {
            q[0] = pull.fetchSubscribeMessageQueues(SMALL_TOPIC).iterator().next();
            until(5000, "stored", () -> pull.maxOffset(q[0]) == 1);
            pull.pull(q[0], "*", 0, 32);
            pull.pull(q[0], "*", 1, 32);
            pull.pull(q[0], "TagZ", 0, 32);
            pull.pull(q[0], "*", 1_000_000, 32);
            // held for 5 s at most, answered when the message comes
            Thread later = new Thread(() -> {
                try {
                    Thread.sleep(700);
                    producer.send(msg(SMALL_TOPIC, "TagA", "key-12", "ends the long poll"));
                } catch (Exception e) {
                    System.out.println("     " + e);
                }
            });
            later.start();
            pull.pullBlockIfNotFound(q[0], "*", 1, 32);
            later.join();
        });
        step("pull held without end", () -> {
            pull.setConsumerPullTimeoutMillis(6000);
            pull.setBrokerSuspendMaxTimeMillis(5000);
            pull.pullBlockIfNotFound(q[0], "*", 2, 32);
            // the answer to a heartbeat has told by now that the broker is new enough
            pull.pull(q[0], MessageSelector.bySql("colour = 'red'"), 0, 32);
        });
        step("offsets", () -> {
            pull.minOffset(q[0]);
            pull.searchOffset(q[0], System.currentTimeMillis() - 60_000);
            pull.earliestMsgStoreTime(q[0]);
            pull.fetchConsumeOffset(q[0], true);
            pull.updateConsumeOffset(q[0], 1);
            pull.getDefaultMQPullConsumerImpl().getOffsetStore().persistAll(Set.of(q[0]));
            until(5000, "offset stored", () -> pull.fetchConsumeOffset(q[0], true) == 1);
            refused(() -> pull.fetchConsumeOffset(pull.fetchSubscribeMessageQueues(TOPIC).iterator().next(), true));
        });
        step("query", () -> {
            Thread.sleep(1000);
            admin.viewMessage(TOPIC, sent.get(0).getOffsetMsgId());
            admin.viewMessage(TOPIC, sent.get(0).getMsgId());
            admin.queryMessage(TOPIC, "key-1", 4, 0, System.currentTimeMillis() + 60_000);
            refused(() -> admin.queryMessage(TOPIC, "no-such-key", 4, 0, System.currentTimeMillis() + 60_000));
            refused(() -> admin.viewMessage(TOPIC, sent.get(0).getOffsetMsgId().substring(0, 16) + "00000000000FFFFF"));
        });
        DefaultLitePullConsumer lite = new DefaultLitePullConsumer("wire_lite");
        step("lite pull", () -> {
            DefaultLitePullConsumer c = lite;
            dress(c, "wire-lite");
            c.setAutoCommit(false);
            c.setHeartbeatBrokerInterval(1000);
            c.setPullThreadNums(1);
            c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            c.subscribe(SMALL_TOPIC, "TagA || TagB");
            c.start();
            AtomicInteger n = new AtomicInteger();
            until(20_000, "polled", () -> n.addAndGet(c.poll(500).size()) >= 2);
            c.commitSync();
        });
        AtomicInteger got = new AtomicInteger();
        DefaultMQPushConsumer first = push("wire_push", "wire-push-1");
        step("push with tags, send back", () -> {
            first.setHeartbeatBrokerInterval(1000);
            first.setMaxReconsumeTimes(3);
            first.subscribe(TOPIC, "TagA || TagB");
            first.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
                got.addAndGet(ms.size());
                for (MessageExt m : ms) {
                    if (m.getKeys() != null && m.getKeys().contains("again") && m.getReconsumeTimes() == 0) {
                        ctx.setDelayLevelWhenNextConsume(1);
                        return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                    }
                    if (m.getKeys() != null && m.getKeys().contains("dead")) {
                        ctx.setDelayLevelWhenNextConsume(-1);
                        return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                    }
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            first.start();
            until(20_000, "backlog", () -> got.get() >= 7);
            int was = got.get();
            producer.send(msg(TOPIC, "TagA", "again", "sent back once"));
            producer.send(msg(TOPIC, "TagA", "dead", "to the dead letters"));
            until(30_000, "redelivery", () -> got.get() >= was + 3);
            Thread.sleep(1500);
        });
        step("second member", () -> {
            DefaultMQPushConsumer second = push("wire_push", "wire-push-2");
            second.subscribe(TOPIC, "TagA || TagB");
            second.registerMessageListener(counting(new AtomicInteger()));
            second.start();
            Thread.sleep(2500);
            second.shutdown();
        });
        step("other consumers", () -> {
            List<DefaultMQPushConsumer> cs = new ArrayList<>();
            DefaultMQPushConsumer orderly = push("wire_orderly", "wire-orderly");
            orderly.subscribe(ORDER_TOPIC, "*");
            orderly.registerMessageListener((MessageListenerOrderly) (ms, ctx) -> ConsumeOrderlyStatus.SUCCESS);
            cs.add(orderly);
            DefaultMQPushConsumer broadcast = push("wire_broadcast", "wire-broadcast");
            broadcast.setMessageModel(MessageModel.BROADCASTING);
            broadcast.subscribe(SMALL_TOPIC, "*");
            broadcast.registerMessageListener(counting(new AtomicInteger()));
            cs.add(broadcast);
            DefaultMQPushConsumer sql = push("wire_sql", "wire-sql");
            sql.subscribe(TOPIC, MessageSelector.bySql("colour = 'red'"));
            sql.registerMessageListener(counting(new AtomicInteger()));
            cs.add(sql);
            DefaultMQPushConsumer all = push("wire_all", "wire-all");
            all.subscribe(SMALL_TOPIC, "*");
            all.registerMessageListener(counting(new AtomicInteger()));
            cs.add(all);
            for (DefaultMQPushConsumer c : cs) {
                c.setHeartbeatBrokerInterval(1000);
                c.start();
            }
            Thread.sleep(3500);
            for (DefaultMQPushConsumer c : cs) {
                c.shutdown();
            }
        });
        step("transactions", () -> {
            AtomicInteger checks = new AtomicInteger();
            TransactionMQProducer tx = dress(new TransactionMQProducer("wire_tx"), "wire-tx");
            tx.setTransactionListener(new TransactionListener() {
                @Override
                public LocalTransactionState executeLocalTransaction(Message m, Object arg) {
                    return (LocalTransactionState) arg;
                }

                @Override
                public LocalTransactionState checkLocalTransaction(MessageExt m) {
                    checks.incrementAndGet();
                    return LocalTransactionState.COMMIT_MESSAGE;
                }
            });
            tx.start();
            tx.sendMessageInTransaction(msg(TX_TOPIC, "TagA", "tx-1", "commit"), LocalTransactionState.COMMIT_MESSAGE);
            tx.sendMessageInTransaction(msg(TX_TOPIC, "TagA", "tx-2", "rollback"), LocalTransactionState.ROLLBACK_MESSAGE);
            tx.sendMessageInTransaction(msg(TX_TOPIC, "TagA", "tx-3", "unknown"), LocalTransactionState.UNKNOW);
            until(40_000, "check", () -> checks.get() > 0);
            Thread.sleep(500);
            tx.shutdown();
        });
        step("request and reply", () -> {
            DefaultMQPushConsumer server = push("wire_reply", "wire-reply");
            server.subscribe("WireRpcTopic", "*");
            DefaultMQProducer answers = dress(new DefaultMQProducer("wire_answers"), "wire-answers");
            answers.start();
            server.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
                try {
                    for (MessageExt m : ms) {
                        answers.send(MessageUtil.createReplyMessage(m, utf8("answer")));
                    }
                } catch (Exception e) {
                    System.out.println("     " + e);
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            TopicConfig tc = new TopicConfig("WireRpcTopic");
            tc.setReadQueueNums(1);
            tc.setWriteQueueNums(1);
            admin.createAndUpdateTopicConfig(addr, tc);
            Thread.sleep(500);
            server.start();
            Thread.sleep(1000);
            producer.request(msg("WireRpcTopic", "TagA", "rpc", "question"), 10_000);
            Thread.sleep(1000); // the answer to the reply itself comes after the reply
            server.shutdown();
            answers.shutdown();
        });
        step("admin", () -> {
            String client = first.buildMQClientId();
            admin.fetchAllTopicList();
            admin.fetchTopicsByCLuster("DefaultCluster");
            admin.examineTopicRouteInfo(TOPIC);
            refused(() -> admin.examineTopicRouteInfo("NoSuchTopic"));
            admin.examineTopicStats(TOPIC);
            refused(() -> admin.examineTopicStats("NoSuchTopic"));
            admin.examineConsumeStats("wire_push");
            admin.examineConsumeStats("wire_push", TOPIC);
            admin.examineConsumerConnectionInfo("wire_push");
            refused(() -> admin.examineConsumerConnectionInfo("no_such_group"));
            admin.examineProducerConnectionInfo("wire_producer", TOPIC);
            admin.getConsumerRunningInfo("wire_push", client, false);
            admin.consumeMessageDirectly("wire_push", client, TOPIC, sent.get(0).getOffsetMsgId());
            refused(() -> admin.getConsumerRunningInfo("wire_push", "127.0.0.1@nobody", false));
            admin.fetchBrokerRuntimeStats(addr);
            admin.getBrokerConfig(addr);
            admin.getAllSubscriptionGroup(addr, 5000);
            admin.examineSubscriptionGroupConfig(addr, "wire_push");
            admin.getAllTopicConfig(addr, 5000);
            admin.examineTopicConfig(addr, TOPIC);
            admin.queryTopicConsumeByWho(TOPIC);
            admin.queryConsumeTimeSpan(TOPIC, "wire_push");
            admin.fetchConsumeStatsInBroker(addr, false, 8000);
            admin.getAllProducerInfo(addr);
            admin.queryConsumeQueue(addr, TOPIC, 0, 0, 4, null);
            refused(() -> admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", TOPIC));
            refused(() -> admin.viewBrokerStatsData(addr, "TOPIC_PUT_NUMS", "NoSuchTopic"));
            java.util.Properties p = new java.util.Properties();
            p.setProperty("traceTopicEnable", "false");
            admin.updateBrokerConfig(addr, p);
            admin.createAndUpdateKvConfig("WIRE", "k", "v");
            admin.getKVConfig("WIRE", "k");
            refused(() -> admin.getKVConfig("WIRE", "none"));
            admin.getKVListByNamespace("WIRE");
            admin.deleteKvConfig("WIRE", "k");
            admin.getNameServerConfig(List.of(ns));
            admin.wipeWritePermOfBroker(ns, broker[0]);
            admin.addWritePermOfBroker(ns, broker[0]);
        });
        step("reset", () -> {
            refused(() -> admin.getConsumeStatus(TOPIC, "wire_push", ""));
            refused(() -> admin.resetOffsetByTimestamp(TOPIC, "wire_push", System.currentTimeMillis() - 3_600_000, true));
            Thread.sleep(1000);
            admin.cloneGroupOffset("wire_push", "wire_empty", TOPIC, true);
        });
        try {
            Class.forName("WireClient5").getMethod("run", DefaultMQAdminExt.class, DefaultMQProducer.class, String.class, String.class)
                .invoke(null, admin, producer, broker[0], addr);
        } catch (ClassNotFoundException e) {
            System.out.println("     no 5.x part");
        }
        step("deletes", () -> {
            admin.deleteSubscriptionGroup(addr, "wire_empty");
            admin.deleteTopicInBroker(new HashSet<>(Set.of(addr)), SMALL_TOPIC);
        });
        step("shutdown", () -> {
            lite.shutdown(); // its last pull was held for 20 s meanwhile
            first.shutdown();
            pull.shutdown();
            producer.shutdown();
            admin.shutdown();
        });
        System.out.println(failed + " steps failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
