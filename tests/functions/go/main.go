// The function in Go, with the client of aws-lambda-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
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

func handle(ctx context.Context, batch event) (answer, error) {
	about, _ := lambdacontext.FromContext(ctx)
	fmt.Println("go call", about.AwsRequestID)
	failed, lines := []failure{}, strings.Builder{}
	for _, record := range batch.Records {
		change := record.Dynamodb
		switch change.NewImage["do"].S {
		case "fail":
			return answer{}, errors.New("no such order")
		case "hang":
			time.Sleep(time.Hour)
		case "exit":
			os.Exit(3)
		case "partial":
			failed = append(failed, failure{change.SequenceNumber})
			continue
		}
		version := change.NewImage["version"].N
		if version == "" {
			version = "0"
		}
		fmt.Fprintf(&lines, "[%q, %s]\n", change.Keys["pk"].S, version)
	}
	if path := os.Getenv("JOURNAL"); path != "" {
		journal, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return answer{}, err
		}
		defer journal.Close()
		if _, err := journal.WriteString(lines.String()); err != nil {
			return answer{}, err
		}
	}
	return answer{failed}, nil
}

func main() { lambda.Start(handle) }
