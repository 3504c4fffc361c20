"""Can the other dashboards be believed: collector, Prometheus, Alertmanager, and relay-otel in the apps."""

from collections.abc import Callable

from grafana.board import ENVIRONMENT, SERVICE, Board, Row, where
from grafana.panels import Panel, Query, bars, lines, number
from grafana.promql import gained, or_none, rate
from grafana.quantities import BYTES, COUNT, FLAG, PER_MINUTE, PER_SECOND, RATIO, SECONDS
from relay_otel.contract.load import Contract

HERE = where('job=~"$service"')
ACCEPTED = "sum by (receiver) (otelcol_receiver_accepted_metric_points)"
SENT = "sum by (exporter) (otelcol_exporter_sent_metric_points)"
FAILED = rate("relay_otel_export_failures_total", HERE, "environment, reason")
DROPPED = rate("relay_otel_dropped_total", HERE, "environment, reason")
LIMITED = gained("relay_otel_series_limited_total", HERE, "environment, metric", "15m")
GROUPS = (
    "label_replace(max by (rule_group) (prometheus_rule_group_last_duration_seconds),"
    ' "group", "$1", "rule_group", ".*;(.*)")'  # without the path of its file
)
LIVE = f"max by (environment) (relay_otel_build_info{HERE})"
"""There for every app."""


def board(contract: Contract) -> Board:
    limit = contract.rules.threshold
    return Board(
        uid="pipeline",
        title="Telemetry pipeline - Relay AI",
        says="Can the other dashboards be believed: does everything arrive, and is somebody told?",
        tags=("pipeline",),
        choices=(ENVIRONMENT, SERVICE),
        rows=(
            Row("", _now(limit("retention_seconds"))),
            Row("Apps", _apps()),
            Row("Collector", _collector(limit)),
            Row("Prometheus and Alertmanager", _prometheus(limit)),
        ),
    )


def _now(retention: float) -> tuple[Panel, ...]:
    up = {"1": ("answers", "green"), "0": ("DOWN", "red")}
    return (
        number(
            1,
            "Collector",
            Query('min(up{job=~"collector.*"})', "collector"),
            FLAG,
            "Whether every endpoint of the collector can be scraped.",
            words=up,
            empty="unknown",
            empty_color="orange",
            width=4,
        ),
        number(
            2,
            "Alerting",
            Query('count(ALERTS{alertname="Watchdog", alertstate="firing"}) >= bool 1', "Watchdog"),
            FLAG,
            "The alert that always fires. Without it Prometheus evaluates no rules.",
            words={"1": ("works", "green")},
            empty="STOPPED",
            empty_color="red",
            width=4,
        ),
        number(
            3,
            "Alertmanagers",
            Query("min(prometheus_notifications_alertmanagers_discovered)", "Alertmanagers"),
            COUNT,
            "How many Alertmanagers Prometheus tells.",
            levels=((None, "red"), (1, "green")),
            empty="unknown",
            empty_color="orange",
            width=4,
        ),
        number(
            4,
            "Configurations",
            Query(
                "min(prometheus_config_last_reload_successful or alertmanager_config_last_reload_successful)",
                "configuration",
            ),
            FLAG,
            "Whether Prometheus and Alertmanager run on the configuration that lies there.",
            words={"1": ("loaded", "green"), "0": ("REFUSED", "red")},
            empty="unknown",
            empty_color="orange",
            width=4,
        ),
        number(
            5,
            "Prometheus keeps",
            Query("max(prometheus_tsdb_retention_limit_seconds > 0)", "retention"),
            SECONDS,
            "How far back Prometheus remembers. The objectives look back 30 days.",
            levels=((None, "red"), (retention, "green")),
            empty="unlimited",
            empty_color="green",
            width=4,
        ),
        number(
            6,
            "Dropped in apps",
            Query(or_none(gained("relay_otel_dropped_total", HERE, "environment"), LIVE), "{{environment}}"),
            COUNT,
            "Measurements of the chosen time that apps gave up.",
            levels=((None, "green"), (1, "yellow")),
            width=4,
            see="TelemetryDropped",
        ),
    )


def _apps() -> tuple[Panel, ...]:
    return (
        lines(
            7,
            "Since the last export",
            Query(
                f"time() - max by (environment, job) (relay_otel_last_export_timestamp_seconds{HERE})",
                "{{environment}} {{job}}",
            ),
            SECONDS,
            "Apps export every 10 seconds. They keep their totals while the collector is away.",
            width=8,
            see="ApiTelemetryMissing",
        ),
        lines(
            8,
            "Exports that failed",
            Query(
                or_none(f"{FAILED} > 0", LIVE),
                "{{environment}} {{reason}}",
            ),
            PER_SECOND,
            "Per second, by reason. The next export carries the same totals, so nothing is lost.",
            width=8,
            see="CollectorDown",
        ),
        lines(
            9,
            "Dropped, by reason",
            Query(
                or_none(f"{DROPPED} > 0", LIVE),
                "{{environment}} {{reason}}",
            ),
            PER_SECOND,
            "Measurements per second that an app gave up.",
            width=8,
        ),
        bars(
            10,
            "Series of the fullest metrics",
            Query(
                f"topk(10, max by (metric) (relay_otel_series{HERE}) / max by (metric) (relay_otel_series_limit{HERE} "
                "> 0))",
                "{{metric}}",
            ),
            RATIO,
            "Series that a metric has, of those it may have. At 100 % new values are counted under `other`; "
            "totals stay right.",
            levels=((None, "green"), (0.8, "yellow"), (1, "red")),
            full=1,
            width=12,
            height=9,
            see="CardinalityOverflow",
        ),
        lines(
            11,
            "Counted under other",
            Query(
                or_none(f"{LIMITED} > 0", LIVE),
                "{{environment}} {{metric}}",
            ),
            COUNT,
            "Measurements of 15 minutes that were counted under `other`, because a limit is reached.",
            width=6,
            height=9,
            see="CardinalityOverflow",
        ),
        lines(
            12,
            "Processes",
            Query(f"sum by (environment, state) (relay_otel_processes{HERE})", "{{environment}} {{state}}"),
            COUNT,
            "Processes whose counts are included; retired ones have ended, and their counts are kept.",
            width=6,
            height=9,
            see="ApiTelemetryMissing",
        ),
        lines(
            23,
            "An answer of /metrics takes",
            Query(f"max by (environment, job) (relay_otel_scrape_duration_seconds{HERE})", "{{environment}} {{job}}"),
            SECONDS,
            "Time that the last answer to a scrape took to make, where apps are scraped.",
            width=16,
            height=6,
            see="ApiTelemetryMissing",
        ),
        number(
            24,
            "Workers in one answer",
            Query(f"max by (environment) (relay_otel_partial{HERE})", "{{environment}}"),
            FLAG,
            "Whether every worker of a server is in its answer. One alone is where they can share no directory.",
            words={"0": ("all", "green"), "1": ("ONE ONLY", "red")},
            width=8,
            height=6,
            see="ApiTelemetryMissing",
        ),
    )


def _collector(limit: Callable[[str], float]) -> tuple[Panel, ...]:
    points = "otelcol_receiver_{}_metric_points"
    return (
        lines(
            13,
            "Taken",
            Query(rate(points.format("accepted"), "", "receiver"), "{{receiver}}"),
            PER_SECOND,
            "Points per second that the collector takes, from apps and from browsers.",
            stacked=True,
            width=8,
            see="CollectorRefused",
        ),
        lines(
            14,
            "Refused",
            [
                Query(or_none(rate(points.format("refused"), "", "receiver"), ACCEPTED), "{{receiver}}"),
                Query(
                    "sum(rate(otelcol_processor_memory_limiter_refused_metric_points[$__rate_interval])) or 0 * sum("
                    + ACCEPTED
                    + ")",
                    "for want of memory",
                ),
            ],
            PER_SECOND,
            "Points per second that the collector did not take. The line is the limit of CollectorRefused.",
            limit=limit("points_per_second"),
            width=8,
        ),
        lines(
            15,
            "Dropped by filters",
            Query("collector:filtered_points:rate:5m", "{{filter}}"),
            PER_SECOND,
            "Points per second that are not in the contract or claim too much, by the filter that dropped them.",
            width=8,
            see="CollectorRefused",
        ),
        lines(
            16,
            "Handed on",
            [
                Query(rate("otelcol_exporter_sent_metric_points", "", "exporter"), "{{exporter}}"),
                Query(
                    or_none(rate("otelcol_exporter_send_failed_metric_points", "", "exporter"), SENT),
                    "{{exporter}} failed",
                ),
                Query(
                    or_none(rate("otelcol_exporter_enqueue_failed_metric_points", "", "exporter"), SENT),
                    "{{exporter}} lost",
                ),
            ],
            PER_SECOND,
            "Points per second that leave the collector, those that could not, and those lost because a queue "
            "was full.",
            width=8,
        ),
        lines(
            17,
            "Queues",
            Query(
                "max by (exporter) (otelcol_exporter_queue_size)"
                " / (max by (exporter) (otelcol_exporter_queue_capacity) > 0)"
                f" or 0 * {SENT}",
                "{{exporter}}",
            ),
            RATIO,
            "How full the queue of a sending exporter is. An exporter that is scraped has none, which shows as 0.",
            limit=limit("queue_full"),
            width=8,
        ),
        lines(
            18,
            "Memory",
            Query("sum by (instance) (otelcol_process_memory_rss)", "{{instance}}"),
            BYTES,
            "Memory of the collector's process.",
            width=8,
            see="CollectorMemoryLimited",
        ),
    )


def _prometheus(limit: Callable[[str], float]) -> tuple[Panel, ...]:
    return (
        lines(
            19,
            "Samples stored",
            Query(
                "sum by (instance) (rate(prometheus_tsdb_head_samples_appended_total[$__rate_interval]))",
                "{{instance}}",
            ),
            PER_SECOND,
            "Samples per second that Prometheus stores.",
            width=6,
        ),
        lines(
            20,
            "Rules",
            Query(f"topk(5, {GROUPS})", "{{group}}"),
            SECONDS,
            "How long the last evaluation of a group of rules took.",
            width=6,
            see="PrometheusRuleFailures",
        ),
        lines(
            22,
            "Evaluations that failed",
            Query("sum(increase(prometheus_rule_evaluation_failures_total[5m]))", "evaluations"),
            COUNT,
            "Rules that could not be evaluated within five minutes; alerts among them are blind.",
            width=6,
        ),
        lines(
            21,
            "Notifications",
            [
                Query("60 * sum by (integration) (rate(alertmanager_notifications_total[5m])) > 0", "{{integration}}"),
                Query(
                    or_none(
                        "60 * sum by (integration) (rate(alertmanager_notifications_failed_total[5m])) > 0",
                        "sum(alertmanager_notifications_total)",
                    ),
                    "{{integration}} failed",
                ),
            ],
            PER_MINUTE,
            "Messages per minute to Slack, PagerDuty and others, and those that failed.",
            width=6,
        ),
    )
