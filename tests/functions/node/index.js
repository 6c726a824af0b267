// The function in JavaScript, with the client of aws-lambda-ric.
"use strict";
const fs = require("fs");
const { spawn } = require("child_process");

const hang = () => new Promise((resolve) => setTimeout(resolve, 3600 * 1000));

exports.handler = async (event, context) => {
  console.log("node call", context.awsRequestId);
  const failed = [];
  let lines = "";
  for (const record of event.Records) {
    const change = record.dynamodb;
    const image = change.NewImage || {};
    switch (image.do ? image.do.S : "") {
      case "fail":
        throw new Error("no such order");
      case "answer":
        return JSON.parse(image.answer.S);
      case "large":
        return "x".repeat(6_300_000);
      case "unmarshalable":
        return { whole: 1n };
      case "hang":
        await hang();
        break;
      case "child":
        fs.writeFileSync(image.file.S, String(spawn("sleep", ["3600"]).pid));
        await hang();
        break;
      case "exit":
        process.exit(3);
        break;
      case "kill":
        process.kill(process.pid, "SIGKILL");
        await hang();
        break;
      case "print":
        process.stdout.write("to stdout\n"); // console puts time and request id before it
        process.stderr.write("to stderr\n");
        return null;
      case "context":
        fs.writeFileSync(
          image.file.S,
          JSON.stringify([context.awsRequestId, context.getRemainingTimeInMillis(), context.invokedFunctionArn]),
        );
        return null;
      case "partial":
        failed.push({ itemIdentifier: change.SequenceNumber });
        continue;
    }
    const version = image.version ? image.version.N : "0";
    lines += `[${JSON.stringify(change.Keys.pk.S)}, ${version}]\n`;
  }
  if (process.env.JOURNAL) fs.appendFileSync(process.env.JOURNAL, lines);
  return { batchItemFailures: failed };
};
