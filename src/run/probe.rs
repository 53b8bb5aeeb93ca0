//! Those who try to get in beside a load: whether they are let in, what they are told, whether they may stay.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::host::Host;
use super::keys::Bearer;
use super::plan::PlanError;
use crate::client::{Connect, ConnectError, TcpConnect};
use crate::units::Rate;

/// How long an attempt may take until it counts as one without an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who tries to get in again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Names it for the judge; unique within a scene.
    pub name: String,
    /// What they bring.
    pub bearer: Bearer,
    /// What they do.
    pub manner: Manner,
}

/// How somebody tries to get in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// So often a second, as long as the loads last; whoever is let in goes again.
    Often(Rate),
    /// So many at once, who stay as long as they may.
    Stay(u32),
}

/// What became of the attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeEvidence {
    /// The probe's name.
    pub name: String,
    /// Handshakes that were begun.
    pub attempts: u64,
    /// Those that ended with 101.
    pub admitted: u64,
    /// Of those who were let in and would have stayed, how many the server closed the connection of.
    pub cut: u64,
    /// Those that were refused, by the HTTP status.
    pub refused: BTreeMap<u16, u64>,
    /// Those that got no such answer.
    pub failed: u64,
    /// What the first of these got.
    pub first_failure: Option<String>,
    /// Those that never got as far as the server, for want of open files, say: they are not among the attempts.
    #[serde(default)]
    pub unmade: u64,
    /// What the first of these lacked.
    #[serde(default)]
    pub first_unmade: Option<String>,
    /// Why nothing was tried.
    pub unavailable: Option<String>,
}

enum Outcome {
    Admitted { cut: bool },
    Refused(u16),
    Failed(String),
    Unmade(String),
}

/// Tries until `over`, and then waits for what has begun.
pub(super) fn knock(
    probes: &[Probe],
    host: &Host,
    over: &watch::Receiver<bool>,
) -> Result<Vec<ProbeEvidence>, PlanError> {
    if probes.is_empty() {
        return Ok(Vec::new());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PlanError::State)?;
    runtime.block_on(async {
        let mut knocking: FuturesUnordered<_> = probes
            .iter()
            .enumerate()
            .map(|(n, probe)| async move { (n, of(probe, host, over.clone()).await) })
            .collect();
        let mut found = vec![ProbeEvidence::default(); probes.len()];
        while let Some((n, evidence)) = knocking.next().await {
            if let Some(place) = found.get_mut(n) {
                *place = evidence;
            }
        }
        Ok(found)
    })
}

async fn of(probe: &Probe, host: &Host, mut over: watch::Receiver<bool>) -> ProbeEvidence {
    let mut evidence = ProbeEvidence { name: probe.name.clone(), ..ProbeEvidence::default() };
    let connect = match host.access_of(probe.bearer) {
        Ok(access) => TcpConnect::new(host.target(), access).map_err(|error| error.to_string()),
        Err(why) => Err(why.to_owned()),
    };
    let connect = match connect {
        Ok(connect) => connect,
        Err(why) => return ProbeEvidence { unavailable: Some(why), ..evidence },
    };
    let mut under_way = FuturesUnordered::new();
    match probe.manner {
        Manner::Stay(count) => {
            evidence.attempts = u64::from(count);
            under_way.extend((0..count).map(|_| attempt(&connect, Some(over.clone()))));
        }
        Manner::Often(rate) => {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate.as_per_second()));
            while !*over.borrow() {
                tokio::select! {
                    _ = over.changed() => {}
                    _ = ticks.tick() => {
                        evidence.attempts += 1;
                        under_way.push(attempt(&connect, None));
                    }
                    Some(outcome) = under_way.next() => evidence.add(outcome),
                }
            }
        }
    }
    while let Some(outcome) = under_way.next().await {
        evidence.add(outcome);
    }
    evidence
}

/// One handshake; whoever is to stay goes when it is over.
async fn attempt(connect: &TcpConnect, stay_until: Option<watch::Receiver<bool>>) -> Outcome {
    let opening = async {
        let request = connect.request(0)?;
        let stream = connect.open().await?;
        client_async(request, stream).await.map_err(ConnectError::of_handshake)
    };
    let mut ws = match tokio::time::timeout(PATIENCE, opening).await {
        Ok(Ok((ws, _))) => ws,
        Ok(Err(ConnectError::Refused { status })) => return Outcome::Refused(status),
        Ok(Err(error)) if error.is_ours() => return Outcome::Unmade(error.to_string()),
        Ok(Err(error)) => return Outcome::Failed(error.to_string()),
        Err(_) => return Outcome::Failed(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let Some(mut over) = stay_until else { return Outcome::Admitted { cut: false } };
    loop {
        tokio::select! {
            // What the server did counts, though all be over.
            biased;
            message = ws.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Outcome::Admitted { cut: true },
                Some(Ok(_)) => {}
            },
            _ = over.wait_for(|&over| over) => return Outcome::Admitted { cut: false },
        }
    }
}

impl ProbeEvidence {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Admitted { cut } => {
                self.admitted += 1;
                self.cut += u64::from(cut);
            }
            Outcome::Refused(status) => *self.refused.entry(status).or_default() += 1,
            Outcome::Failed(why) => {
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
            Outcome::Unmade(why) => {
                self.attempts = self.attempts.saturating_sub(1);
                self.unmade += 1;
                self.first_unmade.get_or_insert(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_got_as_far_as_the_server_is_no_attempt() {
        let mut evidence = ProbeEvidence { attempts: 3, ..ProbeEvidence::default() };
        for outcome in [
            Outcome::Unmade("no files".to_owned()),
            Outcome::Unmade("no more".to_owned()),
            Outcome::Refused(401),
        ] {
            evidence.add(outcome);
        }
        assert_eq!((evidence.attempts, evidence.unmade, evidence.failed), (1, 2, 0));
        assert_eq!((evidence.refused[&401], evidence.first_unmade.as_deref()), (1, Some("no files")));
    }
}
