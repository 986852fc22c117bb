import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.impl.ClientRemotingProcessor;
import org.apache.rocketmq.client.impl.mqclient.MQClientAPIExt;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ChangeInvisibleTimeRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ExtraInfoUtil;
import org.apache.rocketmq.remoting.protocol.header.NotificationRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What only a 5.x client says: heartbeats with a fingerprint, timed messages, recall, pop. */
public final class WireClient5 {
    static final String POP_TOPIC = "WirePopTopic";

    public static void run(DefaultMQAdminExt admin, DefaultMQProducer producer, String brokerName, String addr) {
        WireClient.step("heartbeat v2", () -> {
            DefaultMQPushConsumer c = WireClient.push("wire_v2", "wire-v2");
            c.setUseHeartbeatV2(true);
            c.setHeartbeatBrokerInterval(1000);
            c.subscribe(WireClient.SMALL_TOPIC, "TagA");
            c.registerMessageListener(WireClient.counting(new AtomicInteger()));
            c.start();
            Thread.sleep(6000);
            c.shutdown();
        });
        WireClient.step("timer and recall", () -> {
            Message m = WireClient.msg(WireClient.TOPIC, "TagA", "timer-1", "timed");
            m.setDelayTimeMs(8000);
            SendResult r = producer.send(m);
            producer.recallMessage(WireClient.TOPIC, r.getRecallHandle());
            Message far = WireClient.msg(WireClient.TOPIC, "TagA", "timer-2", "too far");
            far.setDelayTimeSec(30L * 24 * 3600);
            WireClient.refused(() -> producer.send(far));
        });
        WireClient.step("boundaries", () -> {
            MessageQueue q = new MessageQueue(WireClient.TOPIC, brokerName, 0);
            admin.searchLowerBoundaryOffset(q, System.currentTimeMillis() - 60_000);
            admin.searchUpperBoundaryOffset(q, System.currentTimeMillis());
            admin.getUserTopicConfig(addr, false, 5000);
            admin.queryTopicsByConsumer("wire_push");
            admin.querySubscription("wire_push", WireClient.TOPIC);
            WireClient.refused(() -> admin.getBrokerHAStatus(addr));
            admin.updateAndGetGroupReadForbidden(addr, "wire_pull", WireClient.TOPIC, true);
            TopicConfig tc = new TopicConfig("WireListTopic", 1, 1, 6);
            admin.createAndUpdateTopicConfigList(addr, List.of(tc));
        });
        if (!"ROCKETMQ".equals(System.getProperty("rocketmq.serialize.type"))) {
            WireClient.step("pop", () -> pop(admin, producer, brokerName, addr));
            WireClient.step("push by pop", () -> {
                admin.setMessageRequestMode(addr, POP_TOPIC, "wire_pop_push", MessageRequestMode.POP, 8, 5000);
                AtomicInteger n = new AtomicInteger();
                DefaultMQPushConsumer c = WireClient.push("wire_pop_push", "wire-pop-push");
                c.setClientRebalance(false);
                c.subscribe(POP_TOPIC, "*");
                c.registerMessageListener(WireClient.counting(n));
                c.start();
                producer.send(WireClient.msg(POP_TOPIC, "TagA", "pop-push", "by pop"));
                WireClient.until(30_000, "popped", () -> n.get() > 0);
                Thread.sleep(1000);
                c.shutdown();
            });
        }
    }

    static AckMessageRequestHeader ackHeader(MessageExt m, String group) {
        String ck = m.getProperty("POP_CK");
        String[] x = ExtraInfoUtil.split(ck);
        AckMessageRequestHeader h = new AckMessageRequestHeader();
        h.setTopic(POP_TOPIC);
        h.setQueueId(ExtraInfoUtil.getQueueId(x));
        h.setOffset(ExtraInfoUtil.getQueueOffset(x));
        h.setConsumerGroup(group);
        h.setExtraInfo(ck);
        return h;
    }

    static void pop(DefaultMQAdminExt admin, DefaultMQProducer producer, String brokerName, String addr) throws Exception {
        TopicConfig tc = new TopicConfig(POP_TOPIC, 1, 1, 6);
        admin.createAndUpdateTopicConfig(addr, tc);
        String group = "wire_pop";
        for (String g : new String[] {group, "wire_pop_order", "wire_pop_push"}) {
            SubscriptionGroupConfig sg = new SubscriptionGroupConfig();
            sg.setGroupName(g);
            sg.setConsumeMessageOrderly(g.endsWith("order"));
            admin.createAndUpdateSubscriptionGroupConfig(addr, sg);
        }
        Thread.sleep(500);
        for (int i = 0; i < 4; i++) {
            producer.send(WireClient.msg(POP_TOPIC, "TagA", "pop-" + i, "pop " + i));
        }
        MQClientAPIExt api = new MQClientAPIExt(WireClient.dress(new ClientConfig(), "wire-pop"), new NettyClientConfig(),
            new ClientRemotingProcessor(null), null);
        api.start();
        List<MessageExt> got = new ArrayList<>();
        WireClient.until(20_000, "popped", () -> {
            PopResult r = api.popMessageAsync(addr, brokerName, popHeader(group, 2, false), 8000).get();
            if (r.getMsgFoundList() != null) {
                got.addAll(r.getMsgFoundList());
            }
            return got.size() >= 4;
        });
        api.popMessageAsync(addr, brokerName, popHeader(group, 2, false), 8000).get();
        api.ackMessageAsync(addr, ackHeader(got.get(0), group), 5000).get();
        AckMessageRequestHeader a = ackHeader(got.get(1), group);
        ChangeInvisibleTimeRequestHeader h = new ChangeInvisibleTimeRequestHeader();
        h.setTopic(a.getTopic());
        h.setQueueId(a.getQueueId());
        h.setOffset(a.getOffset());
        h.setConsumerGroup(group);
        h.setExtraInfo(a.getExtraInfo());
        h.setInvisibleTime(5000L);
        api.changeInvisibleTimeAsync(addr, brokerName, h, 5000).get();
        api.batchAckMessageAsync(addr, POP_TOPIC, group, List.of(got.get(2).getProperty("POP_CK"), got.get(3).getProperty("POP_CK")), 5000).get();
        NotificationRequestHeader n = new NotificationRequestHeader();
        n.setConsumerGroup(group);
        n.setTopic(POP_TOPIC);
        n.setQueueId(-1);
        n.setPollTime(1000);
        n.setBornTime(System.currentTimeMillis());
        api.notification(addr, n, 5000).get();
        PopResult ordered = api.popMessageAsync(addr, brokerName, popHeader("wire_pop_order", 2, true), 8000).get();
        for (MessageExt m : ordered.getMsgFoundList()) {
            api.ackMessageAsync(addr, ackHeader(m, "wire_pop_order"), 5000).get();
        }
        api.shutdown();
    }

    static PopMessageRequestHeader popHeader(String group, int max, boolean order) {
        PopMessageRequestHeader h = new PopMessageRequestHeader();
        h.setConsumerGroup(group);
        h.setTopic(POP_TOPIC);
        h.setQueueId(-1);
        h.setMaxMsgNums(max);
        h.setInvisibleTime(30_000);
        h.setPollTime(1000);
        h.setBornTime(System.currentTimeMillis());
        h.setInitMode(0);
        h.setExpType("TAG");
        h.setExp("*");
        h.setOrder(order);
        return h;
    }
}
