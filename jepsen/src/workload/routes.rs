//! The route: who leads, as each name server tells it.

use std::time::Duration;

use quorate::remoting::body::TopicRouteData;
use quorate::remoting::{Command, RequestCode, json};

use super::Context;
use super::log::TOPIC;
use crate::client::{Answer, Caller};
use crate::history::{Kind, Value, Workload};

const PATIENCE: Duration = Duration::from_millis(1000);
const PACE: Duration = Duration::from_millis(50);

/// Asks one name server again and again; notes each change.
pub(crate) async fn watch(mut context: Context, namesrv: usize) {
    let histories = context.histories.clone();
    let mut process = histories.process(Workload::Routes);
    let caller = Caller::new();
    let address = context.servers.namesrvs[namesrv].clone();
    let node = u32::try_from(namesrv).ok();
    let mut last = None;
    while !context.is_over() {
        let request = Command::request(RequestCode::GetRouteinfoByTopic).with_field("topic", TOPIC);
        if let Answer::Done(answer) = caller.call(&address, request, PATIENCE, &[]).await
            && let Ok(route) = json::from_slice::<TopicRouteData>(&answer.body.to_bytes())
        {
            let master = route.broker_datas.first().and_then(|group| group.broker_addrs.get(&0)).cloned();
            let at =
                master.as_ref().and_then(|master| context.servers.brokers.iter().position(|a| a == master));
            if master.is_some() && at != last {
                last = at;
                process.invoke("route", Value::None, node);
                let leader = at.map_or(u64::MAX, |at| at as u64);
                process.end(Kind::Ok, "route", Value::Element(leader), node);
            }
        }
        context.pause(PACE).await;
    }
}
