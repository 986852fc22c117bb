import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * Fills the store of one Apache broker; make-java-store runs it from source. Arguments: NAMESRV ACKED_FILE clean|killed.
 * ACKED_FILE gets `topic queueId queueOffset offsetMsgId key` per acknowledged message. `killed` goes on sending until the broker is gone.
 */
public final class FillStore {
    static final String A = "CompatA";
    static final String B = "CompatB";
    static PrintStream acked;

    static <T extends ClientConfig> T dress(T c, String ns) {
        c.setNamesrvAddr(ns);
        c.setClientIP("127.0.0.1");
        c.setInstanceName("fill-" + System.nanoTime());
        c.setPollNameServerInterval(1000);
        return c;
    }

    static synchronized void note(SendResult r, String key) {
        // the ids of a batch are separated by commas, its offsets follow each other
        String[] ids = r.getOffsetMsgId().split(",");
        String[] keys = key.split(",");
        for (int i = 0; i < ids.length; i++) {
            acked.println(r.getMessageQueue().getTopic() + " " + r.getMessageQueue().getQueueId() + " " + (r.getQueueOffset() + i) + " " + ids[i] + " " + keys[i]);
        }
    }

    static Message message(String topic, String tag, String key, String body) {
        return new Message(topic, tag, key, body.getBytes(StandardCharsets.UTF_8));
    }

    public static void main(String[] args) throws Exception {
        String ns = args[0];
        acked = new PrintStream(args[1]);
        DefaultMQAdminExt admin = dress(new DefaultMQAdminExt(8000L), ns);
        admin.start();
        String addr = admin.examineBrokerClusterInfo().getBrokerAddrTable().values().iterator().next().getBrokerAddrs().get(0L);
        for (String t : new String[] {A, B}) {
            TopicConfig tc = new TopicConfig(t);
            int queues = t.equals(A) ? 4 : 1;
            tc.setReadQueueNums(queues);
            tc.setWriteQueueNums(queues);
            admin.createAndUpdateTopicConfig(addr, tc);
        }
        DefaultMQProducer p = dress(new DefaultMQProducer("compat_producer"), ns);
        p.setCompressMsgBodyOverHowmuch(64 * 1024);
        p.setSendMsgTimeout(10_000);
        p.start();
        Thread.sleep(1500);
        for (int i = 0; i < 480; i++) {
            // every fourth message is long, so that the commit log has more than one file; it compresses well in the archive
            Message m = message(A, "Tag" + i % 3, "a-" + i, i % 4 == 0 ? ("body " + i + " ").repeat(900) : "body " + i);
            m.setFlag(i);
            if (i % 5 == 0) {
                m.putUserProperty("n", Integer.toString(i));
            }
            note(p.send(m), "a-" + i);
        }
        // more than one file of 100 entries in the only queue
        for (int i = 0; i < 160; i++) {
            note(p.send(message(B, i % 2 == 0 ? "" : "TagB", "b-" + i + " pair-" + i / 2, "b body " + i)), "b-" + i);
        }
        for (int k = 0; k < 3; k++) {
            List<Message> batch = new ArrayList<>();
            StringBuilder keys = new StringBuilder();
            for (int i = 0; i < 10; i++) {
                String key = "batch-" + k + "-" + i;
                batch.add(message(A, "TagBatch", key, "batch " + k + " " + i));
                keys.append(i == 0 ? "" : ",").append(key);
            }
            note(p.send(batch), keys.toString());
        }
        p.setCompressMsgBodyOverHowmuch(512);
        note(p.send(message(B, "TagZip", "zip-1", "all work and no play ".repeat(200))), "zip-1");
        Message late = message(B, "TagLate", "late-1", "delayed by a second");
        late.setDelayTimeLevel(1);
        p.send(late);

        TransactionMQProducer tx = dress(new TransactionMQProducer("compat_tx"), ns);
        tx.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message m, Object state) {
                return (LocalTransactionState) state;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                return LocalTransactionState.UNKNOW;
            }
        });
        tx.start();
        tx.sendMessageInTransaction(message(B, "TagTx", "tx-commit", "committed"), LocalTransactionState.COMMIT_MESSAGE);
        tx.sendMessageInTransaction(message(B, "TagTx", "tx-rollback", "rolled back"), LocalTransactionState.ROLLBACK_MESSAGE);
        tx.sendMessageInTransaction(message(B, "TagTx", "tx-open", "open"), LocalTransactionState.UNKNOW);

        AtomicInteger seen = new AtomicInteger();
        AtomicInteger again = new AtomicInteger();
        DefaultMQPushConsumer c = dress(new DefaultMQPushConsumer("compat_push"), ns);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setPersistConsumerOffsetInterval(500);
        c.setMaxReconsumeTimes(3);
        c.subscribe(B, "*");
        c.registerMessageListener((MessageListenerConcurrently) (ms, ctx) -> {
            for (MessageExt m : ms) {
                if ("late-1".equals(m.getKeys())) {
                    ctx.setDelayLevelWhenNextConsume(m.getReconsumeTimes() == 0 ? 1 : -1); // once again, then to the dead letters
                    again.incrementAndGet();
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                seen.incrementAndGet();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        for (int i = 0; i < 300 && (seen.get() < 162 || again.get() < 2); i++) {
            Thread.sleep(200);
        }
        DefaultMQPullConsumer pull = dress(new DefaultMQPullConsumer("compat_pull"), ns);
        pull.start();
        for (MessageQueue q : pull.fetchSubscribeMessageQueues(A)) {
            pull.pull(q, "*", 0, 1); // makes the group: a commit of an unknown group is refused, which one-way nobody sees
            pull.updateConsumeOffset(q, 10 + q.getQueueId());
            pull.getDefaultMQPullConsumerImpl().getOffsetStore().persistAll(Set.of(q));
        }
        Thread.sleep(1500);
        c.shutdown();
        pull.shutdown();
        tx.shutdown();
        System.out.println("seen " + seen + " again " + again);
        if (args[2].equals("killed")) {
            Thread.sleep(6000); // the broker writes offsets every 5 s
            System.out.println("READY");
            p.setRetryTimesWhenSendFailed(0);
            p.setSendMsgTimeout(1000);
            int failures = 0;
            for (int i = 0; failures < 3 && i < 20_000; i++) {
                try {
                    note(p.send(message(A, "TagLast", "last-" + i, "last " + i)), "last-" + i);
                    Thread.sleep(5);
                } catch (Exception e) {
                    failures++;
                }
            }
        }
        acked.close();
        System.exit(0);
    }
}
