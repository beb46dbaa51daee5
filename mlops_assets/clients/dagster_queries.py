"""GraphQL queries and mutations of `dagster_client.py`."""

ASSETS = """
query Assets($keys: [AssetKeyInput!], $checks: Boolean!) { assetNodes(assetKeys: $keys) {
  assetKey { path } description isPartitioned isExecutable
  tags { key value } dependencyKeys { path } opNames jobNames
  repository { name location { name } }
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } }
  assetMaterializations(limit: 1) { timestamp partition }
  assetChecksOrError @include(if: $checks) { ... on AssetChecks { checks { name blocking
    executionForLatestMaterialization { status evaluation { severity } }
    partitionStatuses { ... on AssetCheckTimePartitionStatuses { ranges { startKey endKey status } } } } } }
} }"""

JOBS = "query Jobs { assetNodes { jobNames } }"

SEVERITY = """
query Severity($key: AssetKeyInput!, $check: String!, $partition: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $check, partition: $partition, limit: 1) { evaluation { severity } } }"""

PARTITION_KEYS = """
query Keys($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeys } } }"""

MATERIALIZATIONS = """
query Materializations($key: AssetKeyInput!, $partitions: [String!], $limit: Int!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { assetMaterializations(limit: $limit, partitions: $partitions) {
    timestamp runId partition metadataEntries { label
      ... on FloatMetadataEntry { floatValue } ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
      ... on JsonMetadataEntry { jsonString } ... on BoolMetadataEntry { boolValue }
      ... on PathMetadataEntry { path } ... on UrlMetadataEntry { url } } } } } }"""

LAUNCH = """
mutation Launch($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on InvalidSubsetError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""

RUN = """
query Run($id: ID!, $steps: Boolean!) { runOrError(runId: $id) { ... on PythonError { message }
  ... on Run { status startTime endTime tags { key value }
  executionPlan @include(if: $steps) { steps { key } }
  stepStats @include(if: $steps) { stepKey status startTime endTime } } } }"""

TAGGED = """
query Tagged($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on PythonError { message }
  ... on Runs { results { runId status } } } }"""

FAILURES = """
query Failures($id: ID!) { logsForRun(runId: $id) { ... on PythonError { message } ... on EventConnection { events { __typename
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } failureMetadata { description } }
  ... on AssetCheckEvaluationEvent { evaluation { success severity checkName description assetKey { path } } }
  ... on RunFailureEvent { message } } } } }"""

REFUSALS = """
query Refusals($id: ID!) { logsForRun(runId: $id) { ... on PythonError { message } ... on EventConnection { events { __typename
  ... on MaterializationEvent { assetKey { path } metadataEntries { label ... on TextMetadataEntry { text } } } } } } }"""

MESSAGES = """
query Messages($id: ID!, $after: String) { logsForRun(runId: $id, afterCursor: $after) { ... on PythonError { message } ... on EventConnection {
  cursor events { ... on LogMessageEvent { message } } } } }"""
