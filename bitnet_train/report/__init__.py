"""Reports for people, from the facts that a stage wrote: Markdown, and one self-contained HTML page.

    evaluate_facts.py  what `evaluate` writes into `facts/evaluate.json`
    overview.py        EvaluateFacts  ->  Document
    lines.py           EvaluateFacts  ->  lines for a terminal
    document.py        what a report is made of: sections of tables, bars, texts side by side
    markdown.py        Document  ->  report.md
    html.py            Document  ->  report.html: no script, no file beside it, dark where the reader's system is

Nothing here computes or imports torch; a report can be made again from a facts file alone.
"""
