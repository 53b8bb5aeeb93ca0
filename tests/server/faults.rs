//! Each planted fault does what it says, exactly, and nothing else.

use std::time::Instant;

use floodline::sampler::ProcessProbe;
use floodline::server::{DelayLaw, DurableConfig, DurableStore, Slip, Targets, read_journal};

use super::*;

const TIMES: u64 = 3;
const MESSAGES: u64 = 100;

fn with(fault: ServerFault) -> ServerConfig {
    ServerConfig { faults: vec![fault], ..ServerConfig::default() }
}

/// A server that slips three times among the first fifty.
fn slipping(slip: Slip) -> ServerHandle {
    spawn(with(ServerFault::Slips { slip, targets: Targets { times: TIMES, among: MESSAGES / 2, seed: 7 } }))
}

/// The answers to a hundred messages of one connection.
async fn answers(server: &ServerHandle) -> Vec<Value> {
    let mut client = Client::connect(server).await;
    client.send_together((0..MESSAGES).map(|n| test_message(n, None)).chain([json!({"type": "last"})])).await;
    let mut answers = Vec::new();
    loop {
        let answer = client.receive().await;
        if answer["type"] == "generic_response" {
            return answers;
        }
        answers.push(answer);
    }
}

fn sequence(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["sequence_id"].as_u64().unwrap()).collect()
}

fn is_intact(answer: &Value) -> bool {
    // CRC-32 (IEEE) of "hello", by another implementation.
    let id = format!("c-{}", answer["sequence_id"]);
    answer["message_id"] == id && answer["content_crc32"] == 0x3610_a686
}

#[tokio::test]
async fn requests_are_ignored() {
    let server = slipping(Slip::IgnoreRequest);
    let answers = answers(&server).await;
    assert!(sequence(&answers).is_sorted_by(|a, b| a < b) && answers.iter().all(is_intact));
    let left = Some(MESSAGES - TIMES);
    let stats = server.stats();
    assert_eq!((stats.received, stats.processed, stats.answered), (Some(MESSAGES), left, left));
    assert_eq!(answers.len() as u64, MESSAGES - TIMES);
}

#[tokio::test]
async fn answers_are_lost() {
    let server = slipping(Slip::LoseAnswer);
    let answers = answers(&server).await;
    assert!(sequence(&answers).is_sorted_by(|a, b| a < b) && answers.iter().all(is_intact));
    assert_eq!(answers.len() as u64, MESSAGES - TIMES);
    assert_eq!(server.stats().processed, Some(MESSAGES));
}

#[tokio::test]
async fn answers_are_repeated() {
    let answers = answers(&slipping(Slip::RepeatAnswer)).await;
    let sequence = sequence(&answers);
    assert!(sequence.is_sorted() && answers.iter().all(is_intact));
    let repeated = sequence.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    assert_eq!((repeated, sequence.len() as u64), (TIMES, MESSAGES + TIMES));
}

#[tokio::test]
async fn answers_are_swapped() {
    let server = slipping(Slip::SwapAnswers);
    let answers = answers(&server).await;
    let mut sequence = sequence(&answers);
    assert!(answers.iter().all(is_intact));
    let mut swapped = 0;
    for at in 1..sequence.len() {
        if sequence[at - 1] > sequence[at] {
            sequence.swap(at - 1, at);
            swapped += 1;
        }
    }
    assert_eq!(swapped, TIMES);
    assert_eq!(sequence, (0..MESSAGES).collect::<Vec<_>>(), "neighbours only");
}

#[tokio::test]
async fn answers_name_nobody() {
    let answers = answers(&slipping(Slip::MisnameAnswer)).await;
    assert_eq!(sequence(&answers), (0..MESSAGES).collect::<Vec<_>>());
    let wrong: Vec<_> = answers.iter().filter(|answer| !is_intact(answer)).collect();
    assert_eq!(wrong.len() as u64, TIMES);
    for answer in wrong {
        assert_eq!(answer["message_id"], format!("nobody-c-{}", answer["sequence_id"]));
    }
}

#[tokio::test]
async fn answers_tell_of_another_content() {
    let answers = answers(&slipping(Slip::AlterAnswer)).await;
    assert_eq!(sequence(&answers), (0..MESSAGES).collect::<Vec<_>>());
    let wrong: Vec<_> = answers.iter().filter(|answer| !is_intact(answer)).collect();
    assert_eq!(wrong.len() as u64, TIMES);
    for answer in wrong {
        assert_eq!(answer["message_id"], format!("c-{}", answer["sequence_id"]));
    }

    let targets = Targets { times: 2, among: 2, seed: 0 };
    let server = spawn(with(ServerFault::Slips { slip: Slip::AlterAnswer, targets }));
    let mut client = Client::connect(&server).await;
    assert_eq!(client.ask(user_message(0)).await["content"], "xé\"llo");
    let empty = json!({"type": "user_message", "message_id": "u-1", "content": ""});
    assert_eq!(client.ask(empty).await["content"], "x");
    assert_eq!(client.ask(user_message(2)).await["content"], "hé\"llo");
}

#[tokio::test]
async fn connections_are_cut_without_a_word() {
    let server = slipping(Slip::CutConnection);
    let mut client = Client::connect(&server).await;
    let mut cuts = 0;
    for n in 0..MESSAGES {
        client.send(test_message(n, None)).await;
        match client.0.next().await {
            Some(Ok(Message::Text(_))) => {}
            Some(Err(_)) | None => {
                cuts += 1;
                client = Client::connect(&server).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cuts, TIMES);
    assert_eq!(server.stats().processed, Some(MESSAGES - TIMES));
}

/// How often `backpressure` and `queue_full` come where a queue of two gets ten messages.
async fn overflow(fault: Option<ServerFault>) -> (usize, usize, Option<u64>) {
    let faults = Vec::from_iter(fault);
    let server = spawn(ServerConfig { faults, ..delayed(Duration::from_secs(3_600), 1, 2) });
    let mut client = Client::connect(&server).await;
    let messages = (0..10).map(|n| test_message(n, None));
    client.send_together(messages.chain([json!({"type": "last"})])).await;
    let (mut signals, mut refusals) = (0, 0);
    loop {
        match client.receive().await["type"].as_str().unwrap() {
            "backpressure" => signals += 1,
            "queue_full" => refusals += 1,
            "generic_response" => return (signals, refusals, server.stats().refused),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn signals_and_refusals_are_withheld_apart() {
    assert_eq!(overflow(None).await, (1, 7, Some(7)));
    assert_eq!(overflow(Some(ServerFault::NoBackpressure)).await, (0, 7, Some(7)));
    assert_eq!(overflow(Some(ServerFault::SilentRefusals)).await, (1, 0, Some(7)));
    let by = Duration::from_secs(600);
    assert_eq!(overflow(Some(ServerFault::LateBackpressure { by })).await, (0, 7, Some(7)));
}

#[tokio::test]
async fn a_late_signal_comes_once_and_not_before_its_time() {
    let by = Duration::from_millis(150);
    let faults = vec![ServerFault::LateBackpressure { by }];
    let server = spawn(ServerConfig { faults, ..delayed(Duration::from_secs(3_600), 1, 1) });
    let mut client = Client::connect(&server).await;
    client.send_together((0..2).map(|n| test_message(n, None))).await;
    let started = Instant::now();
    let mut signalled = None;
    for n in 2.. {
        client.send_together([test_message(n, None), json!({"type": "last"})]).await;
        assert_eq!(client.receive().await["type"], "queue_full");
        let next = client.receive().await;
        if next["type"] == "backpressure" {
            assert_eq!(signalled.replace(n), None);
            assert!(started.elapsed() >= by, "{:?}", started.elapsed());
            assert_eq!(client.receive().await["type"], "generic_response");
        }
        if signalled.is_some_and(|at| n > at + 100) {
            return;
        }
    }
}

#[tokio::test]
async fn high_priority_waits_its_turn() {
    for (faults, expected) in [(vec![], [0, 2, 1]), (vec![ServerFault::ArrivalOrder], [0, 1, 2])] {
        let server = spawn(ServerConfig { faults, ..delayed(Duration::from_millis(20), 1, 10) });
        let mut client = Client::connect(&server).await;
        client
            .send_together([test_message(0, None), test_message(1, None), test_message(2, Some("high"))])
            .await;
        for n in expected {
            assert_eq!(client.receive().await["sequence_id"], n);
        }
    }
}

#[tokio::test]
async fn what_an_earlier_run_processed_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    for (faults, expected) in [
        (vec![], ["ai_response", "duplicate_rejected"]),
        (vec![], ["duplicate_rejected", "duplicate_rejected"]),
        (vec![ServerFault::ForgetOnStart], ["ai_response", "duplicate_rejected"]),
    ] {
        let store = DurableStore::open(dir.path(), &DurableConfig::default()).unwrap();
        let server = spawn(ServerConfig { faults, store: Some(Arc::new(store)), ..ServerConfig::default() });
        let mut client = Client::connect(&server).await;
        for kind in expected {
            assert_eq!(client.ask(user_message(0)).await["type"], kind);
        }
        drop(client);
        server.shutdown().await.unwrap();
    }
    let journal = read_journal(dir.path()).unwrap();
    let executions: Vec<_> = journal.iter().map(|entry| (entry.incarnation, &*entry.id)).collect();
    assert_eq!(executions, [(1, "u-0"), (3, "u-0")]);
}

#[tokio::test]
async fn the_nth_connection_is_turned_away() {
    let server = spawn(with(ServerFault::RefuseConnection { nth: 2 }));
    let mut first = Client::connect(&server).await;
    assert_eq!(first.ask(test_message(0, None)).await["sequence_id"], 0);
    assert_eq!(Client::connect(&server).await.close_code().await, 1013);
    let mut third = Client::connect(&server).await;
    assert_eq!(third.ask(test_message(1, None)).await["sequence_id"], 1);
    assert_eq!(server.stats().connection_count, 2);
}

#[tokio::test]
async fn pauses_come_again() {
    let (every, duration) = (Duration::from_millis(50), Duration::from_millis(200));
    let server = spawn(ServerConfig { workers: 1, ..with(ServerFault::Pause { every, duration }) });
    let mut client = Client::connect(&server).await;
    let mut held = 0;
    let mut n = 0;
    // However the machine delays us, a message is sooner or later sent into each pause.
    while held < 3 {
        let asked = Instant::now();
        assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
        held += u32::from(asked.elapsed() >= duration / 2);
        n += 1;
    }
    assert_eq!(server.stats().answered, Some(n));
}

#[tokio::test]
async fn a_growing_delay_doubles_the_age_of_the_run() {
    // At one second per second, a message that starts t after the first takes t.
    let (growth, per) = (Duration::from_secs(1), Duration::from_secs(1));
    let server = spawn(with(ServerFault::GrowingDelay { growth, per }));
    let mut client = Client::connect(&server).await;
    assert_eq!(client.ask(test_message(0, None)).await["sequence_id"], 0);
    let first_answered = Instant::now();
    for n in 1.. {
        let (asked, age) = (Instant::now(), first_answered.elapsed());
        assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
        assert!(asked.elapsed() >= age, "{:?} at {age:?}", asked.elapsed());
        if age > Duration::from_millis(200) {
            return;
        }
    }
}

/// Sends a hundred messages at once; the answers in the order in which they came, each with the time from the sending.
async fn timed_answers(client: &mut Client) -> Vec<(u64, Duration)> {
    let sent = Instant::now();
    client.send_together((0..MESSAGES).map(|n| test_message(n, None))).await;
    let mut answers = Vec::new();
    for _ in 0..MESSAGES {
        let answer = client.receive().await;
        assert!(is_intact(&answer), "{answer}");
        answers.push((answer["sequence_id"].as_u64().unwrap(), sent.elapsed()));
    }
    answers
}

#[tokio::test]
async fn some_answers_are_late_and_overtaken_by_the_others() {
    // So long that a machine under load has answered the others before.
    let by = Duration::from_millis(500);
    let fault = ServerFault::LateAnswers { share: 0.2, by, seed: 7 };
    let server = spawn(with(fault));
    let answers = timed_answers(&mut Client::connect(&server).await).await;
    let (late, on_time): (Vec<u64>, Vec<u64>) = (0..MESSAGES).partition(|n| fault.hits(&format!("c-{n}")));
    assert!(!late.is_empty() && !on_time.is_empty());
    let order: Vec<u64> = answers.iter().map(|(n, _)| *n).collect();
    assert_eq!(order, [on_time, late.clone()].concat());
    for (n, after) in answers {
        assert_eq!(after >= by, late.contains(&n), "{n}: {after:?}");
    }
    assert_eq!(server.stats().answered, Some(MESSAGES));
}

#[tokio::test]
async fn every_answer_waits_for_its_delay() {
    let ms = Duration::from_millis;
    for law in [DelayLaw::Uniform(ms(1), ms(100)), DelayLaw::Lognormal { median: ms(20), sigma: 0.5 }] {
        let server = spawn(with(ServerFault::Delay { law, seed: 7 }));
        let delay = |n: u64| law.of(7, &format!("c-{n}"));
        let answers = timed_answers(&mut Client::connect(&server).await).await;
        for (n, after) in &answers {
            assert!(*after >= delay(*n), "{n}: {after:?}");
        }
        // All were read within far less time than lies between the shortest and the longest delay.
        let order: Vec<u64> = answers.iter().map(|(n, _)| *n).collect();
        assert!(!order.is_sorted());
        let (shortest, longest) = (*order.first().unwrap(), *order.last().unwrap());
        assert!(delay(shortest) < delay(longest));
    }
}

#[tokio::test]
async fn a_delay_counts_from_the_reading_and_contains_the_processing() {
    let (processing, law) = (Duration::from_millis(300), DelayLaw::Constant(Duration::from_millis(400)));
    let faults = vec![ServerFault::Delay { law, seed: 0 }];
    let server = spawn(ServerConfig { faults, processing_delay: processing, ..ServerConfig::default() });
    let mut client = Client::connect(&server).await;
    // The quickest of several: one may be held up by other work of the machine, not all by 300 ms.
    let mut quickest = Duration::MAX;
    for n in 0..3 {
        let asked = Instant::now();
        assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
        quickest = quickest.min(asked.elapsed());
    }
    assert!(quickest >= Duration::from_millis(400), "{quickest:?}");
    assert!(quickest < Duration::from_millis(700), "{quickest:?}");
}

#[tokio::test]
async fn a_shutdown_waits_for_what_is_held() {
    let law = DelayLaw::Constant(Duration::from_millis(200));
    let server = spawn(with(ServerFault::Delay { law, seed: 0 }));
    let mut client = Client::connect(&server).await;
    client.send(test_message(0, None)).await;
    wait_while(|| server.stats().processed == Some(0)).await;
    let leaving = async move { (client.receive().await["sequence_id"].as_u64(), client.close_code().await) };
    let (ended, left) = tokio::join!(server.shutdown(), leaving);
    assert_eq!((ended.unwrap().cut_off, left), (0, (Some(0), 1001)));
}

#[tokio::test]
async fn each_nth_connection_is_starved_and_no_other() {
    // So rare that the hundredth answer of the starved would be out after a minute and a half.
    let gap = Duration::from_secs(1);
    let server = spawn(with(ServerFault::StarveConnections { nth: 2, gap }));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(&server).await);
    }
    for (client, starved) in clients.iter_mut().zip([false, true, false, true]) {
        let sent = Instant::now();
        client
            .send_together((0..MESSAGES).map(|n| test_message(n, None)).chain([json!({"type": "last"})]))
            .await;
        let mut order = Vec::new();
        loop {
            let answer = client.receive().await;
            if answer["type"] == "generic_response" {
                break;
            }
            order.push(answer["sequence_id"].as_u64().unwrap());
        }
        if !starved {
            assert_eq!(order.len() as u64, MESSAGES);
            continue;
        }
        assert_eq!(order, [0], "what is no answer to a processed request does not wait");
        assert_eq!(client.receive().await["sequence_id"], 1);
        assert!(sent.elapsed() >= gap, "{:?}", sent.elapsed());
    }
}

#[tokio::test]
async fn each_open_connection_takes_longer() {
    let slowness = Duration::from_millis(20);
    let server = spawn(with(ServerFault::SlowPerConnection { slowness }));
    let mut clients = Vec::new();
    for open in 1..=5 {
        clients.push(Client::connect(&server).await);
        let asked = Instant::now();
        assert_eq!(clients[0].ask(test_message(u64::from(open), None)).await["sequence_id"], open);
        assert!(asked.elapsed() >= slowness * open, "{open}: {:?}", asked.elapsed());
    }
    clients.truncate(1);
    wait_while(|| server.stats().connection_count > 1).await;
    // The quickest of several: one may be held up by other work of the machine.
    let mut quickest = Duration::MAX;
    for n in 0..5 {
        let asked = Instant::now();
        assert_eq!(clients[0].ask(test_message(n, None)).await["sequence_id"], n);
        quickest = quickest.min(asked.elapsed());
    }
    assert!(quickest < slowness * 5, "those that are closed are not counted: {quickest:?}");
}

#[tokio::test]
async fn the_last_of_an_overflowing_queue_stay_until_the_shutdown() {
    let faults = vec![ServerFault::KeepQueue { count: 3 }];
    let server = spawn(ServerConfig { faults, ..delayed(Duration::from_millis(1), 1, 10) });
    let mut client = Client::connect(&server).await;
    let others = (0..10).map(|n| test_message(n, None));
    // One is in work, so the queue has room for ten more.
    client.send(test_message(100, None)).await;
    assert_eq!(client.receive().await["sequence_id"], 100);
    client.send_together(others).await;
    for n in 0..10 {
        assert_eq!(client.receive().await["sequence_id"], n, "without an overflow nothing stays");
    }
    client.send_together((0..200).map(|n| test_message(n, None))).await;
    let (mut answered, mut refused) = (Vec::new(), 0);
    while answered.len() + 3 + refused < 200 {
        let answer = client.receive().await;
        match answer["type"].as_str().unwrap() {
            "throughput_response" => answered.push(answer["sequence_id"].as_u64().unwrap()),
            "queue_full" => refused += 1,
            _ => assert_eq!(answer["type"], "backpressure"),
        }
    }
    assert!(refused > 0);
    assert_eq!(server.stats().queue_depth, 3);
    for n in 500..510 {
        assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n, "later ones are served");
    }
    assert_eq!(server.stats().queue_depth, 3);
    let leaving = async move {
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(client.receive().await["sequence_id"].as_u64().unwrap());
        }
        assert_eq!(client.close_code().await, 1001);
        kept
    };
    let (ended, kept) = tokio::join!(server.shutdown(), leaving);
    assert!(answered.last() < kept.first() && kept.is_sorted(), "the last were kept: {kept:?}");
    assert_eq!((ended.unwrap().cut_off, kept.len()), (0, 3));
}

#[tokio::test]
async fn what_was_only_admitted_is_told_to_be_processed_after_a_kill() {
    for (faults, expected) in
        [(vec![], "ai_response"), (vec![ServerFault::ProcessedAtAdmission], "duplicate_rejected")]
    {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(DurableStore::open(dir.path(), &DurableConfig::default()).unwrap());
        let store = open();
        let config = delayed(Duration::from_secs(3_600), 1, 10);
        let config = ServerConfig {
            store: Some(Arc::clone(&store) as Arc<dyn ProcessedIds>),
            faults,
            // As good as a kill: what is in work or waits is given up.
            shutdown_grace: Duration::ZERO,
            ..config
        };
        let server = spawn(config.clone());
        let mut client = Client::connect(&server).await;
        client.send_together([user_message(0), user_message(1), json!({"type": "last"})]).await;
        assert_eq!(client.receive().await["type"], "generic_response");
        assert_eq!(server.stats().admitted, Some(2));
        server.shutdown().await.unwrap();
        drop((store, config));
        assert!(read_journal(dir.path()).unwrap().is_empty(), "nothing was executed");

        let server = spawn(ServerConfig { store: Some(open()), ..ServerConfig::default() });
        let mut client = Client::connect(&server).await;
        for n in 0..2 {
            assert_eq!(client.ask(user_message(n)).await["type"], expected);
        }
        let executed = read_journal(dir.path()).unwrap().len();
        assert_eq!(executed, if expected == "ai_response" { 2 } else { 0 });
    }
}

#[tokio::test]
async fn what_is_processed_at_admission_and_lives_on_is_processed_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = DurableStore::open(dir.path(), &DurableConfig::default()).unwrap();
    let faults = vec![ServerFault::ProcessedAtAdmission];
    let server = spawn(ServerConfig { faults, store: Some(Arc::new(store)), ..ServerConfig::default() });
    let mut client = Client::connect(&server).await;
    for n in 0..3 {
        assert_eq!(client.ask(user_message(n)).await["type"], "ai_response");
        assert_eq!(client.ask(user_message(n)).await["type"], "duplicate_rejected");
    }
    let ids: Vec<String> = read_journal(dir.path()).unwrap().into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, ["u-0", "u-1", "u-2"]);
}

#[tokio::test]
async fn memory_swells_with_its_message_and_is_given_back_with_the_last_sender() {
    const MIB: i64 = 1 << 20;
    let resident = || ProcessProbe::of_this_process()?.read()?.rss_bytes;
    let server = spawn(ServerConfig {
        memory: Some(MemoryProbe { live_bytes: || None, resident_bytes: resident, purge: || {} }),
        ..with(ServerFault::Swell { bytes: 512 << 20, after: 3 })
    });
    let now = || server.stats().resident_bytes.unwrap() as i64;
    let mut client = Client::connect(&server).await;
    let mut watcher = Client::connect(&server).await;
    watcher.ask(json!({"type": "get_performance_stats"})).await;
    client.ask(test_message(0, None)).await;
    let before = now();
    client.ask(test_message(1, None)).await;
    // The other tests of this process take and give back far less than half of it.
    let swollen = now();
    assert!(swollen - before > 256 * MIB, "{before} {swollen}");
    drop(client);
    wait_while(|| swollen - now() < 256 * MIB).await;
    assert_eq!(watcher.ask(json!({"type": "get_performance_stats"})).await["type"], "performance_stats");
}

/// So many clients, each of which the server has counted.
async fn connected(server: &ServerHandle, count: u64) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(server).await);
    }
    wait_while(|| server.stats().connection_count < count).await;
    clients
}

/// Ends a connection without a word to the server.
async fn lose(client: Client, server: &ServerHandle) {
    let open = server.stats().connection_count;
    drop(client);
    wait_while(|| server.stats().connection_count == open).await;
}

/// Closes a connection as it should be.
async fn leave(mut client: Client, server: &ServerHandle) {
    let open = server.stats().connection_count;
    client.0.close(None).await.unwrap();
    while client.frame().await.is_some() {}
    wait_while(|| server.stats().connection_count == open).await;
}

/// The longest time between two answers within a second from `started` on.
async fn held_up(client: &mut Client, started: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = started;
    for n in 0.. {
        assert_eq!(client.ask(test_message(n, None)).await["sequence_id"], n);
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if started.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    longest
}

#[tokio::test]
async fn a_lost_connection_stalls_all_workers_and_a_closed_one_none() {
    let duration = Duration::from_millis(500);
    let server = spawn(ServerConfig { workers: 2, ..with(ServerFault::BadNeighbour { duration }) });
    let mut clients = connected(&server, 4).await;
    for lost in [true, false] {
        let client = clients.pop().unwrap();
        let started = Instant::now();
        if lost {
            lose(client, &server).await;
        } else {
            leave(client, &server).await;
        }
        // Those left are of both workers.
        let (one, other) = clients.split_at_mut(1);
        let held = tokio::join!(held_up(&mut one[0], started), held_up(&mut other[0], started));
        for held in [held.0, held.1] {
            assert_eq!(held >= duration, lost, "{held:?}");
        }
    }
}

#[tokio::test]
async fn after_a_loss_nobody_new_is_served_for_a_while() {
    let duration = Duration::from_millis(500);
    let server = spawn(with(ServerFault::DeafAfterLoss { duration }));
    let mut clients = connected(&server, 3).await.into_iter();
    let (Some(mut old), Some(losing), Some(closing)) = (clients.next(), clients.next(), clients.next())
    else {
        panic!("not three");
    };
    leave(closing, &server).await;
    assert_eq!(Client::connect(&server).await.ask(test_message(0, None)).await["sequence_id"], 0);
    // What was left behind by the line above is a loss of its own.
    wait_while(|| server.stats().connection_count > 2).await;
    let lost = Instant::now();
    lose(losing, &server).await;
    let connecting = async {
        let client = Client::connect(&server).await;
        (client, lost.elapsed())
    };
    let asking = async {
        let answer = old.ask(test_message(1, None)).await;
        assert_eq!(answer["sequence_id"], 1, "who is connected is served");
    };
    let ((mut new, after), ()) = tokio::join!(connecting, asking);
    assert!(after >= duration, "{after:?}");
    assert_eq!(new.ask(test_message(2, None)).await["sequence_id"], 2);
}

#[tokio::test]
async fn the_nth_connection_is_half_closed() {
    let at = Duration::from_millis(100);
    let server = spawn(with(ServerFault::HalfClose { nth: 2, at }));
    let mut first = Client::connect(&server).await;
    let mut second = Client::connect(&server).await;
    let connected = Instant::now();
    let end = tokio::time::timeout(PATIENCE, second.0.next()).await.unwrap();
    assert!(matches!(end, Some(Err(_)) | None), "no close frame: {end:?}");
    // The handshake had its end a little before we knew.
    assert!(connected.elapsed() >= at / 2, "{:?}", connected.elapsed());
    // The server goes on reading: a client that writes all the same has its requests processed.
    let frame = [0x81, 0x80 | 2, 0, 0, 0, 0, b'{', b'}'];
    second.0.get_mut().write_all(&frame).await.unwrap();
    wait_while(|| server.stats().message_count == 0).await;
    assert_eq!(first.ask(test_message(0, None)).await["sequence_id"], 0);
    lose(second, &server).await;
}

#[tokio::test]
async fn the_nth_connection_falls_silent_and_stays_open() {
    let at = Duration::from_millis(100);
    let server = spawn(with(ServerFault::SilentConnection { nth: 1, at }));
    let mut first = Client::connect(&server).await;
    let mut second = Client::connect(&server).await;
    // Sooner or later a ping has no pong.
    let mut pongs = 0;
    loop {
        first.0.send(Message::Ping("?".into())).await.unwrap();
        match tokio::time::timeout(Duration::from_secs(1), first.0.next()).await {
            Ok(Some(Ok(Message::Pong(_)))) => pongs += 1,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    let seen = server.stats().message_count;
    first.send(test_message(0, None)).await;
    assert_eq!(second.ask(test_message(1, None)).await["sequence_id"], 1);
    assert_eq!(
        (server.stats().message_count, server.stats().connection_count),
        (seen + 1, 2),
        "{pongs} pongs"
    );
    // Nor does a shutdown wait for it, or say a word.
    drop(second);
    assert_eq!(server.shutdown().await.unwrap().cut_off, 0);
    let end = tokio::time::timeout(PATIENCE, first.0.next()).await.unwrap();
    assert!(matches!(end, Some(Err(_)) | None), "{end:?}");
}
