"use strict";
/* Draws every plot of the page in the colours of its present look, and again when that changes. */
(() => {
  const { plots, dark } = JSON.parse(document.getElementById("plots").textContent);
  if (typeof Plotly === "undefined") return;
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  const paper = window.matchMedia("print");
  const PRINT_WIDTH = 680;  // of an A4 or letter page between its margins, in CSS pixels

  const recoloured = (value) => {
    if (typeof value === "string") return dark[value] || value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item)]));
    }
    return value;
  };
  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const axis = (own) => ({
    gridcolor: tone("--grid"), linecolor: tone("--line"), zerolinecolor: tone("--grid"), showline: true,
    ticks: "outside", tickcolor: tone("--line"), automargin: true, ...own,
    title: { standoff: 10, ...own.title },
  });

  const layoutOf = (spec, height, width) => {
    const narrow = width < 560;
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, width,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: narrow ? 11 : 13,
              color: tone("--ink") },
      margin: { l: narrow ? 48 : 62, r: narrow ? 12 : 24, t: 16, b: 48 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: narrow ? 11 : 12 } },
      hoverlabel: { bgcolor: tone("--panel"), bordercolor: tone("--line"), font: { color: tone("--ink") }, align: "left" },
      showlegend: true, hovermode: "closest", dragmode: false, ...spec.layout,
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) layout[key] = axis(layout[key]);
    }
    return layout;
  };

  const draw = (printing) => {
    for (const [id, { spec, height }] of Object.entries(plots)) {
      const node = document.getElementById(id);
      const shown = night.matches && !printing ? recoloured(spec) : structuredClone(spec);
      const width = printing ? PRINT_WIDTH : node.clientWidth;
      Plotly.react(node, shown.data, layoutOf(shown, height, width), {
        displaylogo: false, displayModeBar: printing ? false : "hover", responsive: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], scrollZoom: false,
      });
    }
  };

  let last = 0;
  const redraw = () => { cancelAnimationFrame(last); last = requestAnimationFrame(() => draw(paper.matches)); };
  draw(paper.matches);
  night.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    // A phone's address bar changes the height alone, which is no reason to draw again.
    if (document.documentElement.clientWidth !== width) { width = document.documentElement.clientWidth; redraw(); }
  });
  document.documentElement.dataset.drawn = Object.keys(plots).length;
})();
