//! The function in Rust, with the client of lambda_runtime.
use lambda_runtime::{run, service_fn, Error, LambdaEvent};
use serde::{Serialize, Serializer};
use serde_json::{json, Value};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, process, thread};

/// An answer, or what JSON cannot hold.
struct Answer(Option<Value>);

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => Err(serde::ser::Error::custom("no JSON")),
        }
    }
}

async fn handle(call: LambdaEvent<Value>) -> Result<Answer, Error> {
    let (event, context) = call.into_parts();
    println!("rust call {}", context.request_id);
    let (mut failed, mut lines) = (Vec::new(), String::new());
    for record in event["Records"].as_array().unwrap_or(&Vec::new()) {
        let change = &record["dynamodb"];
        let text = |name: &str| change["NewImage"][name]["S"].as_str().unwrap_or("").to_string();
        match text("do").as_str() {
            "fail" => return Err("no such order".into()),
            "answer" => return Ok(Answer(Some(serde_json::from_str(&text("answer"))?))),
            "large" => return Ok(Answer(Some(json!("x".repeat(6_300_000))))),
            "unmarshalable" => return Ok(Answer(None)),
            "hang" => thread::sleep(Duration::from_secs(3600)),
            "child" => {
                let child = process::Command::new("sleep").arg("3600").spawn()?;
                fs::write(text("file"), child.id().to_string())?;
                thread::sleep(Duration::from_secs(3600));
            }
            "exit" => process::exit(3),
            "kill" => {
                process::Command::new("kill").args(["-KILL", &process::id().to_string()]).status()?;
                thread::sleep(Duration::from_secs(3600));
            }
            "print" => {
                println!("to stdout");
                eprintln!("to stderr");
                return Ok(Answer(Some(Value::Null)));
            }
            "context" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
                let known = json!([context.request_id, context.deadline as i64 - now, context.invoked_function_arn]);
                fs::write(text("file"), known.to_string())?;
                return Ok(Answer(Some(Value::Null)));
            }
            "partial" => {
                failed.push(json!({"itemIdentifier": change["SequenceNumber"]}));
                continue;
            }
            _ => {}
        }
        let version = change["NewImage"]["version"]["N"].as_str().unwrap_or("0");
        lines.push_str(&format!("[{}, {}]\n", change["Keys"]["pk"]["S"], version));
    }
    if let Ok(path) = env::var("JOURNAL") {
        fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(lines.as_bytes())?;
    }
    Ok(Answer(Some(json!({"batchItemFailures": failed}))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
