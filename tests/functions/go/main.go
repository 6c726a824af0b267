// The function in Go, with the client of aws-lambda-go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type value struct{ S, N string }

type event struct {
	Records []struct {
		Dynamodb struct {
			Keys           map[string]value
			NewImage       map[string]value
			SequenceNumber string
		} `json:"dynamodb"`
	}
}

type failure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}

type answer struct {
	BatchItemFailures []failure `json:"batchItemFailures"`
}

func handle(ctx context.Context, batch event) (any, error) {
	about, _ := lambdacontext.FromContext(ctx)
	fmt.Println("go call", about.AwsRequestID)
	failed, lines := []failure{}, strings.Builder{}
	for _, record := range batch.Records {
		change := record.Dynamodb
		image := change.NewImage
		switch image["do"].S {
		case "fail":
			return nil, errors.New("no such order")
		case "answer":
			return json.RawMessage(image["answer"].S), nil
		case "large":
			return strings.Repeat("x", 6_300_000), nil
		case "unmarshalable":
			return make(chan int), nil
		case "hang":
			time.Sleep(time.Hour)
		case "child":
			child := exec.Command("sleep", "3600")
			if err := child.Start(); err != nil {
				return nil, err
			}
			if err := os.WriteFile(image["file"].S, []byte(strconv.Itoa(child.Process.Pid)), 0o600); err != nil {
				return nil, err
			}
			time.Sleep(time.Hour)
		case "exit":
			os.Exit(3)
		case "kill":
			return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "panic":
			panic("no such order")
		case "print":
			fmt.Println("to stdout")
			fmt.Fprintln(os.Stderr, "to stderr")
			return nil, nil
		case "context":
			deadline, _ := ctx.Deadline()
			known, _ := json.Marshal([]any{about.AwsRequestID, time.Until(deadline).Milliseconds(), about.InvokedFunctionArn})
			return nil, os.WriteFile(image["file"].S, known, 0o600)
		case "partial":
			failed = append(failed, failure{change.SequenceNumber})
			continue
		}
		version := image["version"].N
		if version == "" {
			version = "0"
		}
		fmt.Fprintf(&lines, "[%q, %s]\n", change.Keys["pk"].S, version)
	}
	if path := os.Getenv("JOURNAL"); path != "" {
		journal, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		defer journal.Close()
		if _, err := journal.WriteString(lines.String()); err != nil {
			return nil, err
		}
	}
	return answer{failed}, nil
}

func main() { lambda.Start(handle) }
