"""The laboratory: simulated students, recorded traces and comparisons at equal rollouts.

    from dpsjax import selectors
    from dpsjax.lab import compare, report, simulate, students

    found = compare.compare(
        {"dps": selectors.dps(), "mine": my_selector},
        students.student(students.limited_lessons()),
        simulate.Setting(pool=8000, batch=256, rollouts=8, steps=150),
        seeds=10,
    )
    print(report.finding(found))

On the command line: ``dpsjax compare``.
"""

import dpsjax.extras.train  # says what is missing
