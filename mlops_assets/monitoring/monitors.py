"""The monitors of the platform, by name. A name becomes the stage `<name>_report`; a monitor is added here and nowhere else.

Every solution has those whose section `monitoring.<name>` has a default; one without belongs to the solutions that have the section.
"""

from mlops_assets.monitoring import attribution_report, data_quality_report, drift_report, groups_report, performance_report

performance = performance_report.MONITOR
data_quality = data_quality_report.MONITOR
drift = drift_report.MONITOR
groups = groups_report.groups
attribution = attribution_report.attribution
