"""The monitors that every solution has, by name. A name becomes the stage `<name>_report`; a monitor is added here and nowhere else."""

from mlops_assets.monitoring import data_quality_report, drift_report, performance_report

performance = performance_report.MONITOR
data_quality = data_quality_report.MONITOR
drift = drift_report.MONITOR
