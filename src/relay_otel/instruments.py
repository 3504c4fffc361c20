# Generated from contract/metrics.yaml, slos.yaml and rules.yaml by "make generate". Do not edit.
"""Every metric, objective and threshold of the contract, as frozen data."""

from collections.abc import Mapping
from types import MappingProxyType

from relay_otel.definitions import Definition, Label, Objective

# --- Labels ---
ENVIRONMENT = Label("environment")
METHOD = Label(
    "method",
    members=("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"),
)
ENDPOINT = Label("endpoint", limit=500)
STATUS_CODE = Label("status_code", limit=64)
CLOSE_CODE = Label("close_code", limit=64)
SLO = Label("slo", members=("availability", "latency"))
SLO_OUTCOME = Label("outcome", members=("good", "bad"))
DATABASE_OPERATION = Label("operation", members=("SELECT", "INSERT", "UPDATE", "DELETE", "OTHER"))
TABLE = Label("table", limit=200)
DATABASE_STATUS = Label("status", members=("success", "error", "cancelled", "timeout"))
POOL = Label("pool", limit=50)
CONNECT_OUTCOME = Label("outcome", members=("success", "error", "cancelled", "timeout"))
POOL_STATE = Label("state", members=("checked_out", "idle", "overflow", "limit"))
MODEL = Label("model", limit=50)
USER_ID_HASH = Label("user_id_hash", limit=500)
LLM_OPERATION = Label("operation", limit=50)
LLM_STATUS = Label("status", members=("success", "error", "aborted"))
TOKEN_TYPE = Label("token_type", members=("input", "output"))
TOKEN_KIND = Label("kind", members=("cache_read", "cache_write", "reasoning"))
LLM_REASON = Label("reason", limit=16)
PERIOD = Label("period", members=("day", "month"))
LEDGER_OUTCOME = Label("outcome", members=("accepted", "delivered", "duplicate", "dropped", "rejected"))
PAGE_NAME = Label("page_name", limit=200)
DEVICE_TYPE = Label("device_type", members=("mobile", "tablet", "desktop", "unknown"))
BUTTON_NAME = Label("button_name", limit=200)
FORM_NAME = Label("form_name", limit=100)
FORM_STATUS = Label("status", members=("success", "error"))
USER_TYPE = Label("user_type", members=("authenticated", "anonymous"))
ERROR_TYPE = Label("error_type", limit=50)
WEB_REASON = Label("reason", members=("queue_full", "rejected", "invalid", "error"))
VERSION = Label("version", limit=100)
MAINTENANCE_KIND = Label("kind", limit=20)
METRIC = Label("metric", limit=500)
DROPPED_REASON = Label(
    "reason",
    members=(
        "labels",
        "not_text",
        "value",
        "memory",
        "collision",
        "aggregation",
        "unreadable",
        "browser_refused",
        "browser_rate_limited",
        "browser_unreachable",
        "browser_unanswered",
        "error",
    ),
)
EXPORT_REASON = Label("reason", members=("unreachable", "timeout", "rejected", "error"))
PROCESS_STATE = Label("state", members=("live", "retired"))

# --- HTTP ---
HTTP_REQUESTS_TOTAL = Definition(
    name="http_requests_total",
    kind="counter",
    unit="{request}",
    description="HTTP requests answered, by route template and status.",
    labels=(METHOD, ENDPOINT, STATUS_CODE, ENVIRONMENT),
    status="emitted",
)
HTTP_REQUEST_DURATION_SECONDS = Definition(
    name="http_request_duration_seconds",
    kind="histogram",
    unit="s",
    description="Time from the request's arrival until its last body byte was handed over.",
    labels=(METHOD, ENDPOINT, ENVIRONMENT),
    bounds=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    status="emitted",
)
HTTP_REQUESTS_IN_FLIGHT = Definition(
    name="http_requests_in_flight",
    kind="updowncounter",
    unit="{request}",
    description="HTTP requests being handled right now.",
    labels=(METHOD, ENDPOINT, ENVIRONMENT),
    merge="sum",
    status="emitted",
)
SLI_REQUESTS_TOTAL = Definition(
    name="sli_requests_total",
    kind="counter",
    unit="{request}",
    description="HTTP requests judged by an objective, all series at zero from the start.",
    labels=(SLO, ENVIRONMENT, SLO_OUTCOME),
    status="emitted",
)
WEBSOCKET_CONNECTIONS_ACTIVE = Definition(
    name="websocket_connections_active",
    kind="updowncounter",
    unit="{connection}",
    description="WebSocket connections open right now.",
    labels=(ENDPOINT, ENVIRONMENT),
    merge="sum",
    status="emitted",
)
WEBSOCKET_CONNECTION_DURATION_SECONDS = Definition(
    name="websocket_connection_duration_seconds",
    kind="histogram",
    unit="s",
    description="How long a WebSocket connection was open.",
    labels=(ENDPOINT, CLOSE_CODE, ENVIRONMENT),
    bounds=(0.1, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0),
    status="emitted",
)

# --- Database ---
DATABASE_QUERY_DURATION_SECONDS = Definition(
    name="database_query_duration_seconds",
    kind="histogram",
    unit="s",
    description="Time the database driver took to execute a statement.",
    labels=(DATABASE_OPERATION, TABLE, DATABASE_STATUS, ENVIRONMENT),
    bounds=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
    status="emitted",
)
DATABASE_QUERIES_TOTAL = Definition(
    name="database_queries_total",
    kind="counter",
    unit="{query}",
    description="Statements executed, one for each execution of a cursor.",
    labels=(DATABASE_OPERATION, TABLE, DATABASE_STATUS, ENVIRONMENT),
    status="emitted",
)
DATABASE_SLOW_QUERIES_TOTAL = Definition(
    name="database_slow_queries_total",
    kind="counter",
    unit="{query}",
    description="Statements that took longer than the slow-query threshold, 1 s unless set.",
    labels=(TABLE, ENVIRONMENT),
    status="emitted",
)
DATABASE_CONNECTIONS_ACTIVE = Definition(
    name="database_connections_active",
    kind="updowncounter",
    unit="{connection}",
    description="Database connections checked out of all pools right now.",
    labels=(ENVIRONMENT,),
    merge="sum",
    status="emitted",
)
DATABASE_UP = Definition(
    name="database_up",
    kind="gauge",
    unit="",
    description="1 when the database answered the pool's last connect or query, else 0.",
    labels=(POOL, ENVIRONMENT),
    merge="min",
    status="emitted",
)
DATABASE_CONNECTS_TOTAL = Definition(
    name="database_connects_total",
    kind="counter",
    unit="{connection}",
    description="Attempts to open a new database connection.",
    labels=(POOL, CONNECT_OUTCOME, ENVIRONMENT),
    status="emitted",
)
DATABASE_POOL_CONNECTIONS = Definition(
    name="database_pool_connections",
    kind="gauge",
    unit="{connection}",
    description="Connections of a pool by state, and its limit.",
    labels=(POOL, POOL_STATE, ENVIRONMENT),
    merge="sum",
    status="emitted",
)
DATABASE_POOL_WAIT_SECONDS = Definition(
    name="database_pool_wait_seconds",
    kind="histogram",
    unit="s",
    description="Time to get a connection from the pool, opened if need be; of those that were given.",
    labels=(POOL, ENVIRONMENT),
    bounds=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
    status="emitted",
)
DATABASE_POOL_TIMEOUTS_TOTAL = Definition(
    name="database_pool_timeouts_total",
    kind="counter",
    unit="{timeout}",
    description="Times the pool gave no connection within its timeout.",
    labels=(POOL, ENVIRONMENT),
    status="emitted",
)

# --- LLM and cost ---
CHAT_MESSAGES_TOTAL = Definition(
    name="chat_messages_total",
    kind="counter",
    unit="{message}",
    description="Chat messages processed.",
    labels=(MODEL, LLM_STATUS, USER_ID_HASH, ENVIRONMENT),
    series_limit=5000,
    status="emitted",
)
LLM_TOKENS_TOTAL = Definition(
    name="llm_tokens_total",
    kind="counter",
    unit="{token}",
    description="Tokens billed for LLM calls.",
    labels=(MODEL, TOKEN_TYPE, LLM_OPERATION, ENVIRONMENT),
    status="emitted",
)
API_COST_USD_TOTAL = Definition(
    name="api_cost_usd_total",
    kind="counter",
    unit="{USD}",
    description="Cost of LLM calls in US dollars.",
    labels=(LLM_OPERATION, MODEL, ENVIRONMENT),
    status="emitted",
)
LLM_REQUEST_DURATION_SECONDS = Definition(
    name="llm_request_duration_seconds",
    kind="histogram",
    unit="s",
    description="Time from an LLM call until its last token.",
    labels=(MODEL, LLM_OPERATION, LLM_STATUS, ENVIRONMENT),
    bounds=(0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0),
    status="emitted",
)
LLM_TOKEN_DETAILS_TOTAL = Definition(
    name="llm_token_details_total",
    kind="counter",
    unit="{token}",
    description="Parts of the input and output tokens, which count them already.",
    labels=(MODEL, TOKEN_KIND, ENVIRONMENT),
    status="emitted",
)
LLM_UNPRICED_CALLS_TOTAL = Definition(
    name="llm_unpriced_calls_total",
    kind="counter",
    unit="{call}",
    description="LLM calls whose cost is unknown because no price was found.",
    labels=(MODEL, LLM_REASON, ENVIRONMENT),
    status="emitted",
)
LLM_USAGE_MISSING_TOTAL = Definition(
    name="llm_usage_missing_total",
    kind="counter",
    unit="{call}",
    description="LLM calls whose provider told no usage.",
    labels=(MODEL, LLM_REASON, ENVIRONMENT),
    status="emitted",
)
LLM_BUDGET_USD = Definition(
    name="llm_budget_usd",
    kind="gauge",
    unit="{USD}",
    description="The LLM budget as set, in US dollars.",
    labels=(PERIOD, ENVIRONMENT),
    merge="max",
    status="emitted",
)
LLM_PRICE_DATA_AGE_SECONDS = Definition(
    name="llm_price_data_age_seconds",
    kind="gauge",
    unit="s",
    description="Age of the price data that costs are computed with.",
    labels=(ENVIRONMENT,),
    merge="max",
    status="emitted",
)
COST_EVENTS_TOTAL = Definition(
    name="cost_events_total",
    kind="counter",
    unit="{event}",
    description="Cost events by what became of them on their way into the ledger.",
    labels=(LEDGER_OUTCOME, ENVIRONMENT),
    status="emitted",
)
COST_EVENTS_REPAIRED_TOTAL = Definition(
    name="cost_events_repaired_total",
    kind="counter",
    unit="{event}",
    description="Cost events whose fields could not be kept as they came, by what was repaired.",
    labels=(LLM_REASON, ENVIRONMENT),
    status="emitted",
)
COST_SPOOL_PENDING = Definition(
    name="cost_spool_pending",
    kind="gauge",
    unit="{event}",
    description="Cost events in the spool that the ledger does not hold yet.",
    labels=(ENVIRONMENT,),
    merge="max",
    status="emitted",
)
COST_SPOOL_OLDEST_SECONDS = Definition(
    name="cost_spool_oldest_seconds",
    kind="gauge",
    unit="s",
    description="Age of the oldest cost event in the spool.",
    labels=(ENVIRONMENT,),
    merge="max",
    status="emitted",
)

# --- Browser ---
WEB_PAGE_LOAD_TIME_SECONDS = Definition(
    name="web_page_load_time_seconds",
    kind="histogram",
    unit="s",
    description="Time until a page was loaded.",
    labels=(PAGE_NAME, DEVICE_TYPE, ENVIRONMENT),
    bounds=(0.1, 0.2, 0.5, 0.8, 1.0, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0),
    emitter="browser",
    status="emitted",
)
LARGEST_CONTENTFUL_PAINT_SECONDS = Definition(
    name="largest_contentful_paint_seconds",
    kind="histogram",
    unit="s",
    description="Time until the largest element was painted; good up to 2.5, poor above 4.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.1, 0.2, 0.5, 0.8, 1.0, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0),
    emitter="browser",
    status="emitted",
)
INTERACTION_TO_NEXT_PAINT_SECONDS = Definition(
    name="interaction_to_next_paint_seconds",
    kind="histogram",
    unit="s",
    description="Slowest reaction to an interaction; good up to 0.2, poor above 0.5.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
    emitter="browser",
    status="emitted",
)
CUMULATIVE_LAYOUT_SHIFT = Definition(
    name="cumulative_layout_shift",
    kind="histogram",
    unit="",
    description="How far a page's content jumped, as a score; good up to 0.1, poor above 0.25.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0),
    emitter="browser",
    status="emitted",
)
FIRST_INPUT_DELAY_SECONDS = Definition(
    name="first_input_delay_seconds",
    kind="histogram",
    unit="s",
    description="Delay of the first interaction; good up to 0.1, poor above 0.3.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
    emitter="browser",
    status="emitted",
)
FIRST_CONTENTFUL_PAINT_SECONDS = Definition(
    name="first_contentful_paint_seconds",
    kind="histogram",
    unit="s",
    description="Time until the first content was painted; good up to 1.8, poor above 3.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.1, 0.2, 0.5, 0.8, 1.0, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0),
    emitter="browser",
    status="emitted",
)
TIME_TO_FIRST_BYTE_SECONDS = Definition(
    name="time_to_first_byte_seconds",
    kind="histogram",
    unit="s",
    description="Time until a page's first byte arrived; good up to 0.8, poor above 1.8.",
    labels=(PAGE_NAME, ENVIRONMENT),
    bounds=(0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.8, 3.0, 6.0, 10.0),
    emitter="browser",
    status="emitted",
)
CLICK_EVENT_TOTAL = Definition(
    name="click_event_total",
    kind="counter",
    unit="{click}",
    description="Clicks on named buttons.",
    labels=(BUTTON_NAME, PAGE_NAME, ENVIRONMENT),
    emitter="browser",
    status="emitted",
)
FORM_SUBMISSION_TOTAL = Definition(
    name="form_submission_total",
    kind="counter",
    unit="{submission}",
    description="Submissions of named forms.",
    labels=(FORM_NAME, FORM_STATUS, ENVIRONMENT),
    emitter="browser",
    status="emitted",
)
SESSION_DURATION_SECONDS = Definition(
    name="session_duration_seconds",
    kind="histogram",
    unit="s",
    description="How long a visit lasted.",
    labels=(USER_TYPE, ENVIRONMENT),
    bounds=(1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0),
    emitter="browser",
    status="emitted",
)
API_CALL_ERRORS_CLIENT_TOTAL = Definition(
    name="api_call_errors_client_total",
    kind="counter",
    unit="{error}",
    description="API calls that failed as seen by the browser.",
    labels=(ENDPOINT, ERROR_TYPE, STATUS_CODE, ENVIRONMENT),
    emitter="browser",
    status="emitted",
)
RELAY_WEB_DROPPED_TOTAL = Definition(
    name="relay_web_dropped_total",
    kind="counter",
    unit="{measurement}",
    description="Measurements the browser package gave up.",
    labels=(WEB_REASON, ENVIRONMENT),
    emitter="browser",
    status="emitted",
)

# --- Operations ---
SLI_AVAILABILITY_PERCENT = Definition(
    name="sli_availability_percent",
    kind="gauge",
    unit="{percent}",
    description="Share of good requests over 30 days, weighted by traffic.",
    labels=(ENVIRONMENT,),
    merge="sum",
    emitter="rules",
    status="emitted",
)
SLO_AVAILABILITY_TARGET_PERCENT = Definition(
    name="slo_availability_target_percent",
    kind="gauge",
    unit="{percent}",
    description="Share of good requests that is promised.",
    labels=(ENVIRONMENT,),
    merge="sum",
    emitter="rules",
    status="emitted",
)
ERROR_BUDGET_REMAINING_SECONDS = Definition(
    name="error_budget_remaining_seconds",
    kind="gauge",
    unit="s",
    description="Full failure the 30-day budget still allows at average traffic; negative when spent.",
    labels=(ENVIRONMENT,),
    merge="sum",
    emitter="rules",
    status="emitted",
)
DEPLOYMENT_ACTIVE_UNTIL_TIMESTAMP_SECONDS = Definition(
    name="deployment_active_until_timestamp_seconds",
    kind="gauge",
    unit="s",
    description="When the deployment in progress will be taken as ended; 0 once it has ended.",
    labels=(VERSION, ENVIRONMENT),
    merge="last",
    emitter="cli",
    status="emitted",
)
MAINTENANCE_ACTIVE_UNTIL_TIMESTAMP_SECONDS = Definition(
    name="maintenance_active_until_timestamp_seconds",
    kind="gauge",
    unit="s",
    description="When the maintenance in progress will be taken as ended; 0 once it has ended.",
    labels=(MAINTENANCE_KIND, ENVIRONMENT),
    merge="last",
    emitter="cli",
    status="emitted",
)
PROBE_SUCCESS = Definition(
    name="probe_success",
    kind="gauge",
    unit="",
    description="1 when the app's health answered a probe from outside, else 0.",
    labels=(ENVIRONMENT,),
    merge="last",
    emitter="probe",
    status="emitted",
)

# --- relay-otel's own ---
RELAY_OTEL_BUILD_INFO = Definition(
    name="relay_otel_build_info",
    kind="gauge",
    unit="",
    description="1, with the version of relay-otel as a label.",
    labels=(VERSION, ENVIRONMENT),
    merge="max",
    status="emitted",
)
RELAY_OTEL_DROPPED_TOTAL = Definition(
    name="relay_otel_dropped_total",
    kind="counter",
    unit="{measurement}",
    description="Measurements given up, by reason.",
    labels=(DROPPED_REASON, ENVIRONMENT),
    status="emitted",
)
RELAY_OTEL_SERIES_LIMITED_TOTAL = Definition(
    name="relay_otel_series_limited_total",
    kind="counter",
    unit="{measurement}",
    description="Measurements counted under `other` because a label or series limit was reached.",
    labels=(METRIC, ENVIRONMENT),
    status="emitted",
)
RELAY_OTEL_PROCESSES = Definition(
    name="relay_otel_processes",
    kind="gauge",
    unit="{process}",
    description="Processes of this server whose counts are included.",
    labels=(PROCESS_STATE, ENVIRONMENT),
    merge="max",
    status="emitted",
)
RELAY_OTEL_EXPORT_FAILURES_TOTAL = Definition(
    name="relay_otel_export_failures_total",
    kind="counter",
    unit="{export}",
    description="OTLP exports that failed.",
    labels=(EXPORT_REASON, ENVIRONMENT),
    status="emitted",
)
RELAY_OTEL_LAST_EXPORT_TIMESTAMP_SECONDS = Definition(
    name="relay_otel_last_export_timestamp_seconds",
    kind="gauge",
    unit="s",
    description="When the last OTLP export succeeded.",
    labels=(ENVIRONMENT,),
    merge="last",
    status="emitted",
)
RELAY_OTEL_SCRAPE_DURATION_SECONDS = Definition(
    name="relay_otel_scrape_duration_seconds",
    kind="gauge",
    unit="s",
    description="Time the last answer of /metrics took to make.",
    labels=(ENVIRONMENT,),
    merge="max",
    status="emitted",
)
RELAY_OTEL_SERIES = Definition(
    name="relay_otel_series",
    kind="gauge",
    unit="{series}",
    description="Series a metric has.",
    labels=(METRIC, ENVIRONMENT),
    merge="max",
    status="emitted",
)
RELAY_OTEL_SERIES_LIMIT = Definition(
    name="relay_otel_series_limit",
    kind="gauge",
    unit="{series}",
    description="Series a metric may have.",
    labels=(METRIC, ENVIRONMENT),
    merge="max",
    status="emitted",
)
RELAY_OTEL_PARTIAL = Definition(
    name="relay_otel_partial",
    kind="gauge",
    unit="",
    description="1 when this answer holds one process only because no directory could be shared, else 0.",
    labels=(ENVIRONMENT,),
    merge="max",
    status="emitted",
)
RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS = Definition(
    name="relay_otel_doctor_timestamp_seconds",
    kind="gauge",
    unit="s",
    description="When `relay-otel doctor` sent this point; its series end two minutes later.",
    labels=(ENVIRONMENT,),
    merge="last",
    emitter="cli",
    status="emitted",
)

# --- All of them ---
DEFINITIONS: Mapping[str, Definition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            HTTP_REQUESTS_TOTAL,
            HTTP_REQUEST_DURATION_SECONDS,
            HTTP_REQUESTS_IN_FLIGHT,
            SLI_REQUESTS_TOTAL,
            WEBSOCKET_CONNECTIONS_ACTIVE,
            WEBSOCKET_CONNECTION_DURATION_SECONDS,
            DATABASE_QUERY_DURATION_SECONDS,
            DATABASE_QUERIES_TOTAL,
            DATABASE_SLOW_QUERIES_TOTAL,
            DATABASE_CONNECTIONS_ACTIVE,
            DATABASE_UP,
            DATABASE_CONNECTS_TOTAL,
            DATABASE_POOL_CONNECTIONS,
            DATABASE_POOL_WAIT_SECONDS,
            DATABASE_POOL_TIMEOUTS_TOTAL,
            CHAT_MESSAGES_TOTAL,
            LLM_TOKENS_TOTAL,
            API_COST_USD_TOTAL,
            LLM_REQUEST_DURATION_SECONDS,
            LLM_TOKEN_DETAILS_TOTAL,
            LLM_UNPRICED_CALLS_TOTAL,
            LLM_USAGE_MISSING_TOTAL,
            LLM_BUDGET_USD,
            LLM_PRICE_DATA_AGE_SECONDS,
            COST_EVENTS_TOTAL,
            COST_EVENTS_REPAIRED_TOTAL,
            COST_SPOOL_PENDING,
            COST_SPOOL_OLDEST_SECONDS,
            WEB_PAGE_LOAD_TIME_SECONDS,
            LARGEST_CONTENTFUL_PAINT_SECONDS,
            INTERACTION_TO_NEXT_PAINT_SECONDS,
            CUMULATIVE_LAYOUT_SHIFT,
            FIRST_INPUT_DELAY_SECONDS,
            FIRST_CONTENTFUL_PAINT_SECONDS,
            TIME_TO_FIRST_BYTE_SECONDS,
            CLICK_EVENT_TOTAL,
            FORM_SUBMISSION_TOTAL,
            SESSION_DURATION_SECONDS,
            API_CALL_ERRORS_CLIENT_TOTAL,
            RELAY_WEB_DROPPED_TOTAL,
            SLI_AVAILABILITY_PERCENT,
            SLO_AVAILABILITY_TARGET_PERCENT,
            ERROR_BUDGET_REMAINING_SECONDS,
            DEPLOYMENT_ACTIVE_UNTIL_TIMESTAMP_SECONDS,
            MAINTENANCE_ACTIVE_UNTIL_TIMESTAMP_SECONDS,
            PROBE_SUCCESS,
            RELAY_OTEL_BUILD_INFO,
            RELAY_OTEL_DROPPED_TOTAL,
            RELAY_OTEL_SERIES_LIMITED_TOTAL,
            RELAY_OTEL_PROCESSES,
            RELAY_OTEL_EXPORT_FAILURES_TOTAL,
            RELAY_OTEL_LAST_EXPORT_TIMESTAMP_SECONDS,
            RELAY_OTEL_SCRAPE_DURATION_SECONDS,
            RELAY_OTEL_SERIES,
            RELAY_OTEL_SERIES_LIMIT,
            RELAY_OTEL_PARTIAL,
            RELAY_OTEL_DOCTOR_TIMESTAMP_SECONDS,
        )
    }
)
OBJECTIVES: tuple[Objective, ...] = (
    Objective(
        name="availability",
        description="A request is good when the server answered it whole and without a fault of its own.",
        targets={"default": 99.9, "production": 99.9, "beta": 99.5},
    ),
    Objective(
        name="latency",
        description="An answered request is good when its last byte was handed over within the threshold.",
        targets={"default": 99.0},
        threshold_seconds=0.5,
    ),
)
THRESHOLDS: Mapping[str, float] = MappingProxyType(
    {
        "burn_fast": 14.4,  # times
        "burn_high": 6.0,  # times
        "burn_slow": 3.0,  # times
        "burn_chronic": 1.0,  # times
        "burn_bad_requests": 10.0,  # requests
        "budget_low": 0.25,  # ratio
        "error_ratio": 0.05,  # ratio
        "error_requests": 10.0,  # requests
        "client_error_ratio": 0.2,  # ratio
        "client_error_requests": 50.0,  # requests
        "latency_share": 0.05,  # ratio
        "latency_seconds": 1.0,  # s
        "llm_latency_seconds": 5.0,  # s
        "latency_requests": 20.0,  # requests
        "apdex_satisfied_seconds": 0.5,  # s
        "apdex_tolerated_seconds": 2.0,  # s
        "apdex": 0.7,  # score
        "apdex_requests": 50.0,  # requests
        "traffic_floor": 0.1,  # requests/s
        "query_seconds": 0.5,  # s
        "query_share": 0.05,  # ratio
        "query_count": 20.0,  # queries
        "pool_utilization": 0.8,  # ratio
        "llm_error_ratio": 0.05,  # ratio
        "llm_errors": 5.0,  # calls
        "llm_seconds": 10.0,  # s
        "llm_share": 0.05,  # ratio
        "llm_calls": 20.0,  # calls
        "cost_spike": 3.0,  # times
        "cost_floor": 1.0,  # USD/h
        "cost_warning": 0.8,  # ratio
        "spool_seconds": 900.0,  # s
        "web_samples": 50.0,  # page views
        "lcp_good": 2.5,  # s
        "lcp_poor": 4.0,  # s
        "inp_good": 0.2,  # s
        "inp_poor": 0.5,  # s
        "cls_good": 0.1,  # score
        "cls_poor": 0.25,  # score
        "web_error_burst": 5.0,  # times
        "web_errors": 10.0,  # errors/min
        "points_per_second": 0.05,  # points/s
        "queue_full": 0.8,  # ratio
        "notification_failures": 0.01,  # ratio
        "retention_seconds": 2592000.0,  # s
    }
)
SELECTORS: Mapping[str, str] = MappingProxyType(
    {
        "llm_endpoints": ".*/(chat|completions?|generate|stream)(/.*)?",
    }
)
# Alert -> the thresholds that decide when it fires, its own first, then those of the rules it reads.
TUNED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ErrorBudgetBurnFast": ("burn_fast", "burn_bad_requests"),
        "ErrorBudgetBurnHigh": ("burn_high", "burn_bad_requests"),
        "ErrorBudgetBurnSlow": ("burn_slow", "burn_bad_requests"),
        "ErrorBudgetBurnChronic": ("burn_chronic", "burn_bad_requests"),
        "ErrorBudgetLow": ("budget_low",),
        "HighErrorRate": ("error_ratio", "error_requests"),
        "HighClientErrorRate": ("client_error_ratio", "client_error_requests"),
        "HighLatency": ("latency_share", "latency_requests", "latency_seconds", "llm_latency_seconds"),
        "ApdexLow": ("apdex", "apdex_requests", "apdex_satisfied_seconds", "apdex_tolerated_seconds"),
        "NoTraffic": ("traffic_floor",),
        "DatabasePoolSaturated": ("pool_utilization",),
        "SlowQueries": ("query_share", "query_count", "query_seconds"),
        "LLMErrorRatioHigh": ("llm_error_ratio", "llm_errors"),
        "LLMLatencyHigh": ("llm_share", "llm_calls", "llm_seconds"),
        "LLMCostSpike": ("cost_spike", "cost_floor"),
        "LLMDailyBudget80": ("cost_warning",),
        "CostLedgerStalled": ("spool_seconds",),
        "WebVitalsPoor": ("lcp_poor", "inp_poor", "cls_poor", "web_samples"),
        "WebVitalsNeedImprovement": ("lcp_good", "inp_good", "cls_good", "web_samples"),
        "BrowserErrorBurst": ("web_error_burst", "web_errors"),
        "CollectorRefused": ("points_per_second",),
        "CollectorMemoryLimited": ("points_per_second",),
        "CollectorExportFailing": ("points_per_second",),
        "CollectorQueueNearlyFull": ("queue_full",),
        "AlertmanagerFailedToSendAlerts": ("notification_failures",),
        "RetentionTooShort": ("retention_seconds",),
    }
)
