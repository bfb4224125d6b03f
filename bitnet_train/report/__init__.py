"""Reports for people, from the files that a run wrote: Markdown, and one self-contained HTML page.

    evaluate_facts.py  what `evaluate` writes into `facts/evaluate.json`
    overview.py        EvaluateFacts  ->  Document
    lines.py           EvaluateFacts  ->  lines for a terminal
    document.py        what a report is made of: sections of tables, bars, texts side by side
    markdown.py        Document  ->  evaluation.md
    html.py            Document  ->  evaluation.html, report.html: no file beside it, dark where the reader's system is

    run_files.py       a run directory  ->  RunFiles, what it holds and what is damaged in it
    run_document.py    RunFiles  ->  Document, the report of every run; which section is made from which file
    compare.py         several RunFiles  ->  Document
    plot.py            curves: an SVG, and the points for the script that replaces it (page_script.py)

Nothing here computes or imports torch; a report can be made again from a facts file alone.
"""
