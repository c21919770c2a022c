"""What ``lossevo evaluate`` says of a comparison before it begins, and shows when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from lossevo.comparison import Comparison, Report


def describe(screen: Console, comparison: Comparison) -> None:
    """Say what will be trained and tested."""
    config, plan = comparison.config, comparison.plan
    losses = ", ".join(contender.name for contender in config.contenders)
    spacing = " × ".join(f"{step:g}" for step in comparison.data.volumes[0].spacing_mm)
    classes = f"{', '.join(comparison.data.class_names[1:])} against background at {spacing} mm"
    unscored = (
        f" ({len(comparison.unscored)} of them without a label, so without a score)" if comparison.unscored else ""
    )
    if config.test_cohort is None:
        cohort = f"Cohort: {config.cohort}; {classes}."
        subjects = (
            f"{len(plan.tested)} tested in {config.folds} folds{unscored}, {len(plan.train_only)} only ever trained on"
        )
    else:
        cohort = f"Trained on: {config.cohort}; {classes}.\nTested on: {config.test_cohort}."
        left_out = f"; {len(plan.left_out)} more left out, which a compared search has seen" if plan.left_out else ""
        subjects = f"{len(plan.train_only)} trained on, {len(plan.tested)} tested{unscored}{left_out}"
    parts = sum(planned.fraction < 1 for planned in comparison.schedule)
    shares = ", ".join(f"{fraction:g}" for fraction in config.fractions)
    fractions = f", {parts} of them with {shares} of the training subjects" if parts else ""
    screen.print(
        f"{cohort}\n"
        f"Subjects: {subjects}.\n"
        f"Losses: {losses}; {len(comparison.schedule)} trainings of {config.task.budget_steps} steps{fractions}"
        f"{_tuning_told(comparison)}.\n"
        f"Metrics: {', '.join(config.metrics)}.\n"
        f"Folder: {comparison.folder}",
        highlight=False,
        markup=False,
    )
    for departure in config.departures:
        screen.print(departure, highlight=False, markup=False, soft_wrap=True)


def _tuning_told(comparison: Comparison) -> str:
    from lossevo.comparison.tuned import courses

    tunings = courses(comparison.config, comparison.plan, comparison.data)
    total = sum(course.total for course in tunings)
    return f", and before them {total} in {len(tunings)} tunings" if tunings else ""


def print_report(screen: Console, comparison: Comparison, report: Report) -> None:
    """Print the main tables of a report, and where the rest is."""
    from lossevo.cli.tables import rows_table
    from lossevo.comparison import (
        claim_rows,
        comparison_rows,
        fraction_rows,
        fraction_title,
        speed_rows,
        summary_rows,
        verdicts,
    )

    main = report.main
    screen.print(f"\n{report.title}", highlight=False, markup=False)
    screen.print(rows_table(summary_rows(report)))
    for sentence in main.findings:
        screen.print(sentence, highlight=False, markup=False)
    if main.pairs:
        screen.print(
            f"{main.metric.label}: {report.reference} against the others, paired by subject",
            highlight=False,
            markup=False,
        )
        screen.print(rows_table(comparison_rows(report, main)))
        screen.print(rows_table(claim_rows(report, main)))
    for sentence in verdicts(report):
        screen.print(sentence, highlight=False, markup=False)
    if report.speeds:
        screen.print("Training speed: steps to a share of the best hand-crafted loss's final Dice", highlight=False)
        screen.print(rows_table(speed_rows(report)))
    if report.data_use:
        screen.print(f"Data utilisation: {fraction_title(main.metric)}", highlight=False, markup=False)
        screen.print(rows_table(fraction_rows(report, main.metric)))
        screen.print(report.data_use.finding, highlight=False, markup=False)
    for note in report.notes:
        screen.print(f"- {note}", style="dim", highlight=False, markup=False)
    more = ", structures.csv" if report.structures else ""
    more += ", tuning/table.md" if report.protocol.tuning else ""
    more += ", speed.csv, curves.csv, figures/learning-curves.png" if report.speeds else ""
    more += ", fractions.csv, fraction_cases.csv, figures/data-fractions.png" if report.data_use else ""
    more += ", trajectories.csv, figures/trajectory-*.png" if report.trajectories else ""
    screen.print(
        f"\nWritten to {comparison.folder}: table.md, cases.csv, summary.csv, comparisons.csv, pairs.csv, ranks.csv, "
        f"challenger.csv, claims_reloaded.csv, summary.json{more}",
        highlight=False,
        markup=False,
    )


def draw(comparison: Comparison, report: Report) -> None:
    """Draw the figures of what a report has, into the comparison's folder.

    Raises:
        LossevoError: a file cannot be written.
    """
    pictures = []
    if report.trajectories:
        from lossevo.report.trajectory_figures import trajectory_pictures

        pictures += trajectory_pictures(report.trajectories)
    if report.speeds:
        from lossevo.report.curve_figures import curve_picture

        pictures.append(curve_picture(report.speeds))
    if report.data_use:
        from lossevo.report.fraction_figures import fraction_picture

        pictures.append(fraction_picture(report.data_use, report.main.metric))
    if pictures:
        from lossevo.report.files import write_pictures

        write_pictures(pictures, comparison.folder / "figures")
