// Puts a uPlot in the place of each drawn curve: hover shows the values of a step in all pictures at once, a drag along
// the steps zooms, a double click or "all steps" shows everything again, a name of the legend hides its line. Colours
// are the page's. Where this does not run, the drawn curve stays.
"use strict";
(() => {
  const HEIGHT = 260;
  const NARROW = 480;
  const sync = uPlot.sync("steps");
  const drawn = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const said = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    return size >= 1000 && size < 1e6
      ? value.toLocaleString("en", { maximumFractionDigits: 0 })
      : String(Number(value.toPrecision(4)));
  };

  const range = (top) => (plot, low, high) => {
    if (low === null || high === null) return [0, 1];
    const [first, last] = [plot.data[0][0], plot.data[0].at(-1)];
    const isAll = plot.scales.x.min <= first && plot.scales.x.max >= last;
    const most = isAll && top !== null ? Math.min(high, Math.max(top, low)) : high;
    const floor = low >= 0 && low < most / 2 ? 0 : low;
    const room = (most - floor || Math.abs(most) || 1) * 0.05;
    return [floor === 0 ? 0 : floor - room, most + room];
  };

  const axis = (more) => ({
    stroke: () => colour("--soft"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { stroke: () => colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
    ...more,
  });

  const series = (line, count) => ({
    label: line.name,
    stroke: () => colour(`--c${line.colour}`),
    width: 1.6,
    spanGaps: true,
    points: { show: line.dots || count < 2, size: 6, fill: () => colour(`--c${line.colour}`) },
  });

  const legend = (figure, plot, lines, reset) => {
    const keys = figure.querySelector(".legend");
    const buttons = lines.map((line, at) => {
      const button = document.createElement("button");
      const value = document.createElement("output");
      button.type = "button";
      button.className = `key c${line.colour}`;
      button.setAttribute("aria-pressed", "true");
      button.title = "Show or hide this line";
      button.append(line.name, value);
      button.addEventListener("click", () => {
        const shows = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(shows));
        plot.setSeries(at + 1, { show: shows });
      });
      return { button, value };
    });
    const step = document.createElement("output");
    step.className = "step";
    keys.replaceChildren(step, ...buttons.map(({ button }) => button), reset);
    return (index) => {
      step.textContent = index === null ? "" : `step ${plot.data[0][index].toLocaleString("en")}`;
      buttons.forEach(({ value }, at) => {
        value.textContent = index === null ? "" : ` ${said(near(plot.data[at + 1], index))}`;
      });
    };
  };

  // The value at a step, or the last one before it: what is measured now and then holds until it is measured again.
  const near = (values, index) => {
    while (index >= 0 && (values[index] === null || values[index] === undefined)) index -= 1;
    return index < 0 ? null : values[index];
  };

  const width = (place) => Math.max(200, Math.floor(place.clientWidth));

  const draw = (figure) => {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".canvas");
    const picture = place.querySelector("svg");
    const reset = document.createElement("button");
    reset.type = "button";
    reset.className = "reset";
    reset.textContent = "all steps";
    reset.hidden = true;
    let tell = () => {};
    const [first, last] = [data.steps[0], data.steps.at(-1)];
    const plot = new uPlot(
      {
        width: width(place),
        height: place.clientWidth < NARROW ? HEIGHT * 0.8 : HEIGHT,
        legend: { show: false },
        cursor: { sync: { key: sync.key }, drag: { x: true, y: false }, points: { size: 7 } },
        scales: { x: { time: false }, y: { range: range(data.top) } },
        axes: [
          axis({ size: 34, space: 60, values: (_, steps) => steps.map((step) => (Number.isInteger(step) ? step.toLocaleString("en") : "")) }),
          axis({ size: (_, labels) => 18 + 7 * Math.max(4, ...(labels ?? []).map((label) => label.length)), values: (_, values) => values.map(said) }),
        ],
        series: [{}, ...data.lines.map((line) => series(line, data.steps.length))],
        hooks: {
          setCursor: [({ cursor }) => tell(cursor.idx ?? null)],
          setScale: [
            (own, key) => {
              if (key === "x") reset.hidden = own.scales.x.min <= first && own.scales.x.max >= last;
            },
          ],
        },
      },
      [data.steps, ...data.lines.map((line) => line.values)],
      place,
    );
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", picture.getAttribute("aria-label"));
    picture.remove();
    tell = legend(figure, plot, data.lines, reset);
    reset.addEventListener("click", () => plot.setScale("x", { min: first, max: last }));
    new ResizeObserver(() => {
      if (width(place) !== plot.width) plot.setSize({ width: width(place), height: plot.height });
    }).observe(place);
    drawn.push(plot);
  };

  document.documentElement.classList.add("scripted");
  for (const figure of document.querySelectorAll("figure.plot")) draw(figure);
  const again = () => drawn.forEach((plot) => plot.redraw(false, true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
