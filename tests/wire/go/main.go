// Says every kind of request of rocketmq-client-go once through the recording proxy.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const (
	topic      = "WireGoTopic"
	orderTopic = "WireGoOrderTopic"
	rpcTopic   = "WireGoRpcTopic"
	txTopic    = "WireGoTxTopic"
)

var (
	bg     = context.Background()
	ns     string
	failed int
)

func step(name string, f func() error) {
	t0 := time.Now()
	if err := f(); err != nil {
		failed++
		fmt.Println("FAIL", name, err)
		return
	}
	fmt.Println("ok  ", name, time.Since(t0).Milliseconds())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func until(limit time.Duration, what string, f func() bool) error {
	for end := time.Now().Add(limit); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", limit, what)
		}
	}
	return nil
}

func resolver() primitive.NsResolver { return primitive.NewPassthroughResolver([]string{ns}) }

func newProducer(name string, o ...producer.Option) rocketmq.Producer {
	p, err := rocketmq.NewProducer(append([]producer.Option{producer.WithNsResolver(resolver()), producer.WithGroupName(name),
		producer.WithInstanceName(name), producer.WithRetry(0)}, o...)...)
	must(err)
	must(p.Start())
	return p
}

func push(group, topic string, sel consumer.MessageSelector, f func(*primitive.MessageExt) consumer.ConsumeResult,
	o ...consumer.Option) rocketmq.PushConsumer {
	c, err := rocketmq.NewPushConsumer(append([]consumer.Option{consumer.WithNsResolver(resolver()), consumer.WithGroupName(group),
		consumer.WithInstance(group + fmt.Sprint(time.Now().UnixNano()%1000)), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset)}, o...)...)
	must(err)
	must(c.Subscribe(topic, sel, func(ctx context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			if r := f(m); r != consumer.ConsumeSuccess {
				if cc, ok := primitive.GetConcurrentlyCtx(ctx); ok {
					cc.DelayLevelWhenNextConsume = 1
				}
				return r, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	}))
	must(c.Start())
	return c
}

func msg(topic, tag, key, body string) *primitive.Message {
	m := primitive.NewMessage(topic, []byte(body))
	m.WithTag(tag)
	m.WithKeys([]string{key})
	return m
}

type listener struct{ checks int64 }

func (l *listener) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	switch {
	case strings.HasPrefix(string(m.Body), "commit"):
		return primitive.CommitMessageState
	case strings.HasPrefix(string(m.Body), "rollback"):
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func (l *listener) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	atomic.AddInt64(&l.checks, 1)
	return primitive.CommitMessageState
}

func main() {
	ns = os.Args[1]
	broker := os.Args[2]
	rlog.SetLogLevel("error")
	var p rocketmq.Producer
	var got int64
	count := func(*primitive.MessageExt) consumer.ConsumeResult {
		atomic.AddInt64(&got, 1)
		return consumer.ConsumeSuccess
	}
	a, err := admin.NewAdmin(admin.WithResolver(resolver()))
	must(err)

	step("admin", func() error {
		for _, t := range []string{topic, orderTopic, rpcTopic, txTopic} {
			if err := a.CreateTopic(bg, admin.WithTopicCreate(t), admin.WithBrokerAddrCreate(broker),
				admin.WithReadQueueNums(1), admin.WithWriteQueueNums(1)); err != nil {
				return err
			}
		}
		if _, err := a.FetchAllTopicList(bg); err != nil {
			return err
		}
		if _, err := a.GetAllSubscriptionGroup(bg, broker, 5*time.Second); err != nil {
			return err
		}
		_, err := a.FetchPublishMessageQueues(bg, topic)
		return err
	})
	step("send", func() error {
		p = newProducer("wire_go_producer")
		m := msg(topic, "TagA", "go-1", "hello wire")
		m.WithProperty("colour", "red")
		if _, err := p.SendSync(bg, m); err != nil {
			return err
		}
		if err := p.SendOneWay(bg, msg(topic, "TagA", "go-2", "one-way")); err != nil {
			return err
		}
		if _, err := p.SendSync(bg, msg(topic, "TagA", "go-3", "batch 1"), msg(topic, "TagB", "go-4", "batch 2")); err != nil {
			return err
		}
		if _, err := p.SendSync(bg, msg(topic, "TagA", "go-5", strings.Repeat("all work and no play ", 250))); err != nil {
			return err
		}
		d := msg(topic, "TagA", "go-6", "delayed")
		d.WithDelayTimeLevel(1)
		if _, err := p.SendSync(bg, d); err != nil {
			return err
		}
		o := msg(orderTopic, "TagA", "go-7", "ordered")
		o.WithShardingKey("shard")
		if _, err := p.SendSync(bg, o); err != nil {
			return err
		}
		done := make(chan error, 1)
		must(p.SendAsync(bg, func(_ context.Context, _ *primitive.SendResult, err error) { done <- err }, msg(topic, "TagB", "go-8", "async")))
		if err := <-done; err != nil {
			return err
		}
		r := newProducer("wire_go_refused", producer.WithCreateTopicKey("NoSuchTemplate"))
		_, err := r.SendSync(bg, msg("WireGoNoTopic", "", "", "x"))
		fmt.Println("     refused as planned:", err)
		return r.Shutdown()
	})
	step("pull", func() error {
		c, err := rocketmq.NewPullConsumer(consumer.WithNsResolver(resolver()), consumer.WithGroupName("wire_go_pull"),
			consumer.WithInstance("wire_go_pull"), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
		must(err)
		must(c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "TagA"}))
		must(c.Start())
		mqs, err := a.FetchPublishMessageQueues(bg, topic)
		must(err)
		if _, err := c.PullFrom(bg, mqs[0], 0, 4); err != nil {
			return err
		}
		_, err = c.PullFrom(bg, mqs[0], 100000, 4)
		fmt.Println("     past the end:", err)
		n := 0
		err = until(20*time.Second, "polled", func() bool {
			r, err := c.Poll(bg, time.Second)
			if err == nil {
				n += len(r.GetMsgList())
				c.ACK(bg, r, consumer.ConsumeSuccess)
			}
			return n >= 3
		})
		time.Sleep(6 * time.Second) // the offset is stored every 5 s
		must(c.Shutdown())
		return err
	})
	var main rocketmq.PushConsumer
	step("push", func() error {
		main = push("wire_go_push", topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "TagA || TagB"},
			func(m *primitive.MessageExt) consumer.ConsumeResult {
				atomic.AddInt64(&got, 1)
				if m.GetKeys() == "go-again" && m.ReconsumeTimes == 0 {
					return consumer.ConsumeRetryLater
				}
				return consumer.ConsumeSuccess
			})
		if err := until(20*time.Second, "backlog", func() bool { return atomic.LoadInt64(&got) >= 6 }); err != nil {
			return err
		}
		was := atomic.LoadInt64(&got)
		if _, err := p.SendSync(bg, msg(topic, "TagA", "go-again", "sent back once")); err != nil {
			return err
		}
		return until(60*time.Second, "redelivery", func() bool { return atomic.LoadInt64(&got) >= was+2 })
	})
	step("second member", func() error {
		second := push("wire_go_push", topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "TagA || TagB"}, count)
		time.Sleep(2 * time.Second)
		return second.Shutdown()
	})
	step("other consumers", func() error {
		orderly := push("wire_go_orderly", orderTopic, consumer.MessageSelector{}, count, consumer.WithConsumerOrder(true))
		sql := push("wire_go_sql", topic, consumer.MessageSelector{Type: consumer.SQL92, Expression: "colour = 'red'"}, count)
		broadcast := push("wire_go_broadcast", orderTopic, consumer.MessageSelector{}, count, consumer.WithConsumerModel(consumer.BroadCasting))
		stamp := push("wire_go_stamp", topic, consumer.MessageSelector{}, count, consumer.WithConsumeFromWhere(consumer.ConsumeFromTimestamp))
		last := push("wire_go_last", topic, consumer.MessageSelector{}, count, consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
		time.Sleep(7 * time.Second)
		for _, c := range []rocketmq.PushConsumer{orderly, sql, broadcast, stamp, last} {
			must(c.Shutdown())
		}
		return nil
	})
	step("transactions", func() error {
		l := &listener{}
		tx, err := rocketmq.NewTransactionProducer(l, producer.WithNsResolver(resolver()), producer.WithGroupName("wire_go_tx"),
			producer.WithInstanceName("wire_go_tx"))
		must(err)
		must(tx.Start())
		for _, b := range []string{"commit", "rollback", "unknown"} {
			if _, err := tx.SendMessageInTransaction(bg, msg(txTopic, "TagA", "go-tx", b)); err != nil {
				return err
			}
		}
		err = until(60*time.Second, "check", func() bool { return atomic.LoadInt64(&l.checks) > 0 })
		time.Sleep(500 * time.Millisecond)
		must(tx.Shutdown())
		return err
	})
	step("request and reply", func() error {
		answers := newProducer("wire_go_answers")
		c := push("wire_go_reply", rpcTopic, consumer.MessageSelector{}, func(m *primitive.MessageExt) consumer.ConsumeResult {
			r := primitive.NewMessage(m.GetProperty(primitive.PropertyCluster)+"_REPLY_TOPIC", []byte("answer"))
			r.WithProperty(primitive.PropertyMsgType, "reply")
			r.WithProperty(primitive.PropertyCorrelationID, m.GetProperty(primitive.PropertyCorrelationID))
			r.WithProperty(primitive.PropertyMessageReplyToClient, m.GetProperty(primitive.PropertyMessageReplyToClient))
			r.WithProperty(primitive.PropertyMessageTTL, m.GetProperty(primitive.PropertyMessageTTL))
			if _, err := answers.SendSync(bg, r); err != nil {
				fmt.Println("     ", err)
			}
			return consumer.ConsumeSuccess
		})
		time.Sleep(2 * time.Second)
		_, err := p.Request(bg, 10*time.Second, msg(rpcTopic, "TagA", "go-rpc", "question"))
		time.Sleep(time.Second) // the answer to the reply itself comes after the reply
		must(c.Shutdown())
		must(answers.Shutdown())
		return err
	})
	// The caller asks an admin tool for the running info of wire_go_push in the meantime.
	fmt.Println("READY")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	step("deletes and shutdown", func() error {
		must(main.Shutdown())
		must(p.Shutdown())
		if err := a.DeleteTopic(bg, admin.WithTopicDelete(rpcTopic), admin.WithBrokerAddrDelete(broker), admin.WithNameSrvAddr([]string{ns})); err != nil {
			return err
		}
		return a.Close()
	})
	fmt.Println(failed, "steps failed")
	if failed > 0 {
		os.Exit(1)
	}
}
