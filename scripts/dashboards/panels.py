"""What the dashboards are made of: panels with our defaults, variables, marks and links.

Data sources are variables everywhere, so that a dashboard works in any Grafana it is imported to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.statetimeline import Panel as StatePanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimePanel
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

MESH_UID = "forebay-mesh"
DEPLOYMENT_UID = "forebay-deployment"
TAG = "forebay"

PROMETHEUS = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Steps = Sequence[tuple[float | None, str]]
GOOD_ABOVE_ZERO: Steps = ((None, "red"), (1, "green"))
BAD_ABOVE_ZERO: Steps = ((None, "green"), (1, "red"))
PLAIN: Steps = ((None, "text"),)


@dataclass(frozen=True)
class Query:
    """One expression and what its series are called.

    Attributes:
        expr: PromQL.
        legend: with `{{label}}`.
        exemplars: whether to show the traces that Prometheus keeps with its buckets.
    """

    expr: str
    legend: str
    exemplars: bool = False


@dataclass(frozen=True)
class Look:
    """How a plot differs from a plain one.

    Attributes:
        width: of 24.
        stacked: regexp of series that are stacked and filled; empty: none.
        steps: whether lines go in steps, as counts of whole things do.
        most: upper end of the axis; None: by the data.
        thresholds: drawn as dashed lines.
        colours: by regexp of series.
    """

    width: int = 12
    stacked: str = ""
    steps: bool = False
    most: float | None = None
    thresholds: Steps = ()
    colours: dict[str, str] = field(default_factory=dict)


REPLICA_LOOK = Look(
    stacked="ready|starting|draining|failed",
    steps=True,
    colours={
        "^ready$": "green",
        "^starting$": "yellow",
        "^draining$": "gray",
        "^failed$": "red",
        "^target$": "text",
        "^assigned$": "purple",
    },
)
"""Replicas by state, filled; what is wanted, as lines."""


def plot(
    title: str, text: str, unit: str, queries: Sequence[Query], look: Look | None = None
) -> TimePanel:
    """Lines over time. What was not known is a gap: nulls are never joined."""
    look = look or Look()
    panel = (
        TimePanel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(look.width)
        .span_nulls(False)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.AUTO)
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"])
        )
        .targets([_query(query, _LETTERS[i]) for i, query in enumerate(queries)])
    )
    if look.steps:
        panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
    if look.most is not None:
        panel.max(look.most)
    if look.thresholds:
        panel.thresholds(_thresholds(look.thresholds)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
            )
        )
    if look.stacked:
        panel.override_by_regexp(look.stacked, _stacked())
    for name, colour in look.colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_regexp(name, [dashboard.DynamicConfigValue("color", fixed)])
    return panel


def number(
    title: str,
    text: str,
    unit: str,
    query: Query,
    thresholds: Steps = PLAIN,
    width: int = 4,
) -> StatPanel:
    """One figure; a dash if it is not known.

    It is asked for as of now: the last value of a range would go on being shown after the series
    has ended.
    """
    return (
        StatPanel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(width)
        .no_value("–")
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(thresholds))
        .with_target(_query(query, "A").instant())
    )


def states(
    title: str, text: str, query: Query, words: dict[str, tuple[str, str]], width: int = 12
) -> StatePanel:
    """Bars of states over time.

    Args:
        title: of the panel.
        text: its description.
        query: gives whole numbers.
        words: text and colour by number.
        width: of 24.
    """
    shown = {
        value: dashboard.ValueMappingResult(text=word, color=colour)
        for value, (word, colour) in words.items()
    }
    return (
        StatePanel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .height(8)
        .span(width)
        .show_value(common.VisibilityMode.NEVER)
        .mappings([dashboard.ValueMap(options=shown)])
        .with_target(_query(query, "A"))
    )


def quantiles(metric: str, selector: str) -> list[Query]:
    """The median, the 95th and the 99th percentile of a histogram; exemplars with the last."""
    return [
        Query(
            f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{selector}"
            "[$__rate_interval])))",
            f"p{q[2:]:0<2}",
            exemplars=q == "0.99",
        )
        for q in ("0.5", "0.95", "0.99")
    ]


def table_query(expr: str, ref: str) -> Dataquery:
    """An instant query whose labels become columns."""
    return (
        Dataquery()
        .expr(expr)
        .instant()
        .format(PromQueryFormat.TABLE)
        .ref_id(ref)
        .datasource(PROMETHEUS)
    )


def data_sources() -> list[builders.DatasourceVariable]:
    """Variables of Prometheus and Jaeger; Grafana takes the default one of each type."""
    return [
        builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        builders.DatasourceVariable("jaeger").label("Jaeger").type("jaeger"),
    ]


def mark(
    name: str, direction: str, selector: str, colour: str, shown: bool = True
) -> builders.AnnotationQuery:
    """Scale decisions of one direction, from when Prometheus heard of them and for 30 s."""
    chosen = f'{{{selector}direction="{direction}"}}'
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .enable(shown)
        .icon_color(colour)
        .expr(
            f"sum by (deployment, direction) (increase(forebay_scale_decisions_total{chosen}[30s]))"
            " > 0"
        )
    )


def to_dashboard(title: str, uid: str, query: str) -> builders.DashboardLink:
    """A link to the other dashboard, at the same time."""
    return _link(title, f"/d/{uid}?{query}${{__url_time_range}}", "dashboard", False)


def to_jaeger(title: str, deployment: str = "") -> builders.DashboardLink:
    """A link to the traces of the routers in Explore.

    Args:
        title: of the link.
        deployment: those of one deployment only; may be a variable.
    """
    tags = f',"tags":"forebay.deployment={deployment}"' if deployment else ""
    pane = (
        '{"traces":{"datasource":"${jaeger}","queries":[{"refId":"A","queryType":"search",'
        f'"service":"forebay-router"{tags}}}],'
        '"range":{"from":"${__from}","to":"${__to}"}}}'
    )
    # Grafana fills in variables of a link only where their braces are left as they are.
    safe = quote(pane, safe=":,")
    for variable in ("${jaeger}", "${__from}", "${__to}", deployment):
        if variable:
            safe = safe.replace(quote(variable, safe=":,"), variable)
    return _link(title, f"/explore?schemaVersion=1&panes={safe}", "external link", True)


def _link(title: str, url: str, icon: str, new_tab: bool) -> builders.DashboardLink:
    return (
        builders.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(url)
        .icon(icon)
        .target_blank(new_tab)
    )


def _query(query: Query, ref: str) -> Dataquery:
    return (
        Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .range()
        .exemplar(query.exemplars)
        .ref_id(ref)
        .datasource(PROMETHEUS)
    )


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value, colour) for value, colour in steps])
    )


def _stacked() -> list[dashboard.DynamicConfigValue]:
    return [
        dashboard.DynamicConfigValue("custom.stacking", {"mode": "normal", "group": "A"}),
        dashboard.DynamicConfigValue("custom.fillOpacity", 60),
        dashboard.DynamicConfigValue("custom.lineWidth", 0),
    ]
