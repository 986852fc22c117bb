import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A stock client as a worker of the chaos suite. {@code Worker produce|consume NAMESRVS TOPIC}; a producer reads one id
 * a line and sends it as a body; both print one JSON object a line.
 */
public final class Worker {
    private static final PrintStream OUT = System.out;

    public static void main(String[] args) throws Exception {
        // What libraries print is not for the driver.
        System.setOut(System.err);
        if (args[0].equals("produce")) {
            produce(args[1], args[2]);
        } else {
            consume(args[1], args[2]);
        }
    }

    private static void produce(String namesrvs, String topic) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("JepsenProducers");
        producer.setNamesrvAddr(namesrvs);
        producer.setPollNameServerInterval(1000);
        producer.setRetryTimesWhenSendFailed(2);
        producer.start();
        print("{\"type\":\"ready\"}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        java.util.concurrent.ExecutorService senders = java.util.concurrent.Executors.newFixedThreadPool(8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String id = line.trim();
            senders.execute(() -> send(producer, topic, id));
        }
        senders.shutdown();
        producer.shutdown();
    }

    private static void send(DefaultMQProducer producer, String topic, String id) {
        try {
            SendResult result = producer.send(new Message(topic, id.getBytes(StandardCharsets.UTF_8)));
            if (result.getSendStatus() == SendStatus.SEND_OK) {
                print("{\"type\":\"ok\",\"id\":" + id + "}");
            } else {
                info(id, result.getSendStatus().toString());
            }
        } catch (Throwable error) {
            info(id, error.getClass().getSimpleName());
        }
    }

    private static void info(String id, String error) {
        print("{\"type\":\"info\",\"id\":" + id + ",\"error\":\"" + error + "\"}");
    }

    private static void consume(String namesrvs, String topic) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("JepsenConsumers");
        consumer.setNamesrvAddr(namesrvs);
        consumer.setPollNameServerInterval(1000);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.setConsumeThreadMin(2);
        consumer.setConsumeThreadMax(4);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                print("{\"type\":\"got\",\"id\":" + new String(message.getBody(), StandardCharsets.UTF_8) + "}");
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        print("{\"type\":\"ready\"}");
        // Ends when the driver does.
        while (System.in.read() >= 0) {
            continue;
        }
        consumer.shutdown();
    }

    private static synchronized void print(String line) {
        OUT.println(line);
        OUT.flush();
    }
}
