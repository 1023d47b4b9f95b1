"use strict";
/* Draws every plot in the colors of the current theme, and again when the theme or the width changes. */
(() => {
  const { plots, dark } = JSON.parse(document.getElementById("plots").textContent);
  if (typeof Plotly === "undefined") return;
  const darkTheme = window.matchMedia("(prefers-color-scheme: dark)");
  const paper = window.matchMedia("print");
  const fine = window.matchMedia("(pointer: fine)");
  const PRINT_WIDTH = 680;  // of an A4 or letter page without its margins, in CSS pixels
  // In beforeprint the page still has its screen styles.
  const PRINTED = { "--ink": "#1b1f24", "--grid": "#e6e9ed", "--line": "#c4cad1", "--panel": "#f5f6f8", "--page": "#ffffff" };
  let printing = paper.matches;

  const recolored = (value) => {
    if (typeof value === "string") return dark[value] || value;
    if (Array.isArray(value)) return value.map(recolored);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolored(item)]));
    }
    return value;
  };
  const themeColor = (name) =>
    printing ? PRINTED[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const axis = (own) => ({
    gridcolor: themeColor("--grid"), linecolor: themeColor("--line"), zerolinecolor: themeColor("--grid"), showline: true,
    ticks: "outside", tickcolor: themeColor("--line"), automargin: true, ...own,
    title: { standoff: 8, font: { size: 13 }, ...own.title },
  });

  const layoutOf = (spec, height, width) => {
    const narrow = width < 560;
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, width,
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: narrow ? 11 : 13,
              color: themeColor("--ink") },
      margin: { l: narrow ? 48 : 62, r: narrow ? 12 : 24, t: 16, b: 48 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: narrow ? 11 : 12 } },
      hoverlabel: { bgcolor: themeColor("--panel"), bordercolor: themeColor("--line"), font: { color: themeColor("--ink") }, align: "left" },
      showlegend: true, hovermode: "closest", 
      // Dragging zooms where there is a mouse; a finger scrolls the page.
      dragmode: fine.matches ? "zoom" : false, ...spec.layout,
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) layout[key] = axis(layout[key]);
    }
    for (const note of layout.annotations || []) note.bgcolor = themeColor("--page");
    return layout;
  };

  const horizontal = (bar) => ({
    ...bar, orientation: "h", y: -0.2, yanchor: "top", thickness: 10, title: { ...bar.title, side: "bottom" },
  });

  const draw = () => {
    for (const [id, { spec, height }] of Object.entries(plots)) {
      const node = document.getElementById(id);
      const shown = darkTheme.matches && !printing ? recolored(spec) : structuredClone(spec);
      const width = printing ? PRINT_WIDTH : node.clientWidth;
      if (!width) continue;  // not visible; drawn again when it has a width
      for (const { marker } of shown.data) {
        if (marker && marker.colorbar && width < 560) marker.colorbar = horizontal(marker.colorbar);
      }
      Plotly.newPlot(node, shown.data, layoutOf(shown, height, width), { displayModeBar: false, doubleClick: "reset" });
    }
  };

  let last = 0;
  const redraw = () => { cancelAnimationFrame(last); last = requestAnimationFrame(draw); };
  draw();
  darkTheme.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    // A phone's address bar changes only the height: no need to draw again.
    if (document.documentElement.clientWidth !== width) { width = document.documentElement.clientWidth; redraw(); }
  });
  document.documentElement.dataset.drawn = Object.keys(plots).length;
})();
