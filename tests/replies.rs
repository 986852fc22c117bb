//! Requests that are answered by messages: the reply goes to who asked, over its own connection.

use quorate::remoting::header::{ReplyMessageRequestHeader, SendMessageResponseHeader};
use quorate::remoting::{Command, RequestCode, ResponseCode};

use crate::harness::{Consumer, Outgoing, Peer, Pull, Socket, TestCluster, records, texts};

const TOPIC: &str = "DefaultCluster_REPLY_TOPIC";
/// The id that [`Consumer`] says it has.
const REQUESTER: &str = "127.0.0.1@1";
const V2: RequestCode = RequestCode::SendReplyMessageV2;

fn reply(code: RequestCode, to: &'static str) -> Command {
    let properties = [("REPLY_TO_CLIENT", to), ("CORRELATION_ID", "c-1")];
    let reply = Outgoing { topic: TOPIC, body: b"pong", properties: &properties, ..Outgoing::default() };
    let request = if code == V2 { reply.v2() } else { reply.v1() };
    Command { code: code.number(), ..request }
}

/// Answers the next PUSH_REPLY_MESSAGE_TO_CLIENT with a code, and returns it.
async fn take(requester: &mut Socket, code: ResponseCode) -> Command {
    let answer = Command::response(code).with_remark("as the test says");
    requester.answer(RequestCode::PushReplyMessageToClient, |_| answer).await
}

async fn start() -> (TestCluster, Peer, Socket) {
    let cluster = TestCluster::start().await;
    let (peer, mut requester) = (cluster.peer(), cluster.socket().await);
    assert_eq!(requester.ask(1, Consumer::default().heartbeat()).await.0.code, 0);
    (cluster, peer, requester)
}

#[tokio::test]
async fn a_reply_reaches_who_asked_and_is_stored() {
    let (cluster, peer, mut requester) = start().await;
    for (number, code) in [V2, RequestCode::SendReplyMessage].into_iter().enumerate() {
        let request = reply(code, REQUESTER);
        let (pushed, answer) = tokio::join!(take(&mut requester, ResponseCode::Success), peer.ok(request));
        let header: ReplyMessageRequestHeader = pushed.header().unwrap();
        assert_eq!((header.topic.as_str(), header.born_timestamp), (TOPIC, Outgoing::BORN));
        let properties = header.properties.unwrap();
        assert!(properties.contains("CORRELATION_ID\u{1}c-1\u{2}"), "{properties:?}");
        assert!(properties.contains("PUSH_REPLY_TIME\u{1}"), "{properties:?}");
        assert_eq!(pushed.body.to_bytes(), "pong");
        let answer: SendMessageResponseHeader = answer.header().unwrap();
        assert_eq!(answer.queue_offset, i64::try_from(number).unwrap());
    }
    let stored = peer.pull(&Pull { topic: TOPIC, ..Pull::default() }).await;
    assert_eq!(texts(&records(&stored)), ["pong", "pong"]);
    cluster.stop().await;
}

#[tokio::test]
async fn whoever_replies_hears_that_nobody_took_it() {
    let (cluster, peer, mut requester) = start().await;
    let (_, refused) =
        tokio::join!(take(&mut requester, ResponseCode::SystemError), peer.call(reply(V2, REQUESTER)));
    assert_eq!(refused.code, 1);
    assert!(refused.remark.unwrap().contains("as the test says"));
    let unknown = peer.call(reply(V2, "127.0.0.1@2")).await;
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.remark.unwrap().starts_with("push reply message fail, channel of <127.0.0.1@2> not found")
    );
    let without = Outgoing { topic: TOPIC, ..Outgoing::default() };
    let without = peer.call(Command { code: V2.number(), ..without.v2() }).await;
    assert_eq!(
        (without.code, without.remark.as_deref()),
        (1, Some("reply message properties[REPLY_TO_CLIENT] is null"))
    );
    // One that has gone is not known any more.
    assert_eq!(requester.ask(2, Consumer::default().goodbye()).await.0.code, 0);
    assert_eq!(peer.call(reply(V2, REQUESTER)).await.code, 1);
    cluster.stop().await;
}
