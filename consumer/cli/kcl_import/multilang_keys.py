"""The keys of a MultiLangDaemon's properties that have no counterpart, and why, or what to do instead.

Fields of ``MultiLangDaemonConfiguration`` and its beans in the KCL 1.x to 3.x, without regard to case.
"""

from __future__ import annotations

import re
from typing import Final

_REASONS: Final = {
    "the SDK finds credentials: environment, profile (AWS_PROFILE; with role_arn it assumes a role), or the role "
    "of the task, pod or instance; never in this file": "AwsCredentialsProvider.*",
    "a worker names itself, anew at each start: host, process and a token": "workerId|workerIdentifier",
    "enhanced fan-out is not offered: shards are polled (5 reads a second and 2 MB/s, shared by all consumers)": (
        "retrievalMode|fanoutConfig[.].*"
    ),
    "see handler.processes: the calls that a worker makes at the same time": "maxActiveThreads",
    "a handler is called with records only": "callProcessRecordsEvenForEmptyRecordList",
    "handlers make no checkpoints: a record is settled when they return": "validateSequenceNumberBeforeCheckpointing",
    "metrics are always on, at /metrics (http.port), and cost nothing": (
        "metrics.*|cloudWatch.*|logWarningForTaskAfterMillis"
    ),
    "new shards are found at the end of their parents, and by a listing once a minute": (
        "shardSync.*|skipShardSync.*|leasesRecoveryAuditor.*|listShards.*|maxListShards.*|maxCacheMisses.*"
        "|shardPrioritization|ignoreUnexpectedChildShards"
    ),
    "a child starts as soon as its parents are settled": "parentShardPollIntervalMillis",
    "rows are removed two days after their shard was finished": (
        "cleanupLeasesUponShardCompletion|leaseCleanup.*|completedLeaseCleanup.*|garbageLeaseCleanup.*"
    ),
    "workers share the shards evenly, by one plan that all of them compute": (
        "maxLeasesToStealAtOneTime|enablePriorityLeaseAssignment|leaseAssignment.*|workerMetrics.*|workerUtilization.*"
        "|inMemoryWorkerMetrics.*|noOfPersistedMetrics.*|disableWorkerMetrics|maxThroughputPerHostKBps"
        "|dampeningPercentage|reBalanceThresholdPercentage|allowThroughputOvershoot|varianceBalancingFrequency"
        "|staleWorkerMetrics.*|(is)?gracefulLeaseHandoff.*"
    ),
    "there is one table, leases.table; `stream-consumer init` creates it, or you do, with the settings you want": (
        "coordinatorState.*|initialLeaseTable.*|leaseTable.*|billingMode|tags"
    ),
    "it is about the KCL's own versions": "clientVersionConfig",
    "each worker renews one session, and there is no leader": "maxLeaseRenewalThreads|.*leader.*",
    "calls to AWS are repeated with growing pauses; see source.poll and retry": (
        "taskBackoffTimeMillis|retryGetRecordsInSeconds|maxGetRecordsThreadPool|idleMillisBetweenCalls"
        "|schedulerInitializationBackoffTimeMillis|maxInitializationAttempts|kinesisRequestTimeout.*"
    ),
    "limits.buffer bounds what is read ahead, for the whole process": (
        "maxPendingProcessRecordsInput|.*prefetch.*|maxByteSize|dataFetchingStrategy"
    ),
    "calls name dynamodb-stream-consumer": "userAgent",
    "of the Java SDK: see aws.region and aws.endpoints": "(kinesis|dynamoDb)Client[.].*",
}


def reason_of(key: str) -> str:
    """Why a key is not in the configuration."""
    for reason, pattern in _REASONS.items():
        if re.fullmatch(pattern, key, re.IGNORECASE):
            return reason
    return "not a key that is known here: look whether it matters"
