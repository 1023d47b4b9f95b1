"use strict";
/* Shows what is under a mouse, a finger or the keyboard's focus in a chart; also in charts put into the page later. */
(() => {
  const REACH = { mark: 24, line: 12 };  // CSS pixels
  const texts = new WeakMap();  // chart -> the texts of its parts, which the picture for wide pages holds
  const parts = new WeakMap();  // picture -> what can be shown, in the order in which the keyboard goes through it
  const tip = document.createElement("div");
  tip.className = "chart-tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  let shown = null;

  const textsOf = (chart) => {
    if (!texts.has(chart)) {
      texts.set(chart, [...chart.querySelectorAll(".wide title")].map((title) => {
        title.parentNode.dataset.t = "";
        title.remove();  // else the browser shows it as well, a second later
        return title.textContent;
      }));
    }
    return texts.get(chart);
  };
  const partsOf = (picture) => {
    if (!parts.has(picture)) {
      const all = textsOf(picture.closest(".chart"));
      const found = [...picture.querySelectorAll("[data-t]")].map((node, index) => {
        const box = node.getBBox(), kind = node.matches(".line") ? "line" : node.matches(".m, .o") ? "mark" : "area";
        const corners = kind === "line" ? node.getAttribute("d").match(/-?[\d.]+/g).map(Number) : [];
        return { node, text: all[index], kind, box, corners, x: box.x + box.width / 2, y: box.y + box.height / 2 };
      });
      found.sort((a, b) => a.x - b.x || a.y - b.y);
      parts.set(picture, found);
    }
    return parts.get(picture);
  };

  const toSegment = (x, y, [x1, y1, x2, y2]) => {
    const dx = x2 - x1, dy = y2 - y1, whole = dx * dx + dy * dy;
    const share = whole ? Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / whole)) : 0;
    return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
  };
  const distance = ({ kind, box, corners, x: middle, y: center }, x, y) => {
    if (kind === "line") {
      let least = Infinity;
      for (let i = 0; i + 3 < corners.length; i += 2) least = Math.min(least, toSegment(x, y, corners.slice(i, i + 4)));
      return least;
    }
    if (kind === "mark" && box.width < 40) return Math.hypot(x - middle, y - center);
    const inside = x >= box.x && x <= box.x + box.width && y >= box.y - 2 && y <= box.y + box.height + 2;
    return inside ? 0 : Infinity;
  };

  const nearest = (picture, event) => {
    const matrix = picture.getScreenCTM();
    if (!matrix) return null;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    for (const kind of ["mark", "line", "area"]) {
      let best = null, least = (REACH[kind] || 1) / matrix.a;
      for (const part of partsOf(picture)) {
        if (part.kind !== kind) continue;
        const away = distance(part, at.x, at.y);
        if (away < least) [best, least] = [part, away];
      }
      if (best) return best;
    }
    return null;
  };

  const hide = () => {
    if (shown) shown.node.classList.remove("is-shown");
    shown = null;
    tip.hidden = true;
  };
  const show = (picture, part) => {
    if (part === shown) return;
    hide();
    if (!part) return;
    shown = part;
    part.node.classList.add("is-shown");
    const chart = picture.closest(".chart"), outer = chart.getBoundingClientRect();
    chart.append(tip);
    tip.hidden = false;
    tip.textContent = part.text;
    tip.style.left = tip.style.top = "0";  // its own width, not what is left of the page's
    const box = part.node.getBoundingClientRect();
    const left = box.left + Math.min(box.width, 40) / 2 - outer.left + 12;
    const flipped = left + tip.offsetWidth > outer.width ? left - tip.offsetWidth - 24 : left;
    const top = box.top - outer.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(0, Math.min(flipped, outer.width - tip.offsetWidth))}px`;
    tip.style.top = `${outer.top + top < 0 ? box.bottom - outer.top + 8 : top}px`;
  };

  const pictureOf = (event) => event.target.closest?.(".chart svg");
  const point = (event) => {
    const picture = pictureOf(event);
    if (picture) show(picture, nearest(picture, event));
    else hide();
  };
  document.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") point(event); });
  document.addEventListener("click", point);
  document.addEventListener("focusin", (event) => {
    const picture = pictureOf(event);
    if (!picture || !picture.matches(":focus-visible")) return;
    const all = partsOf(picture);
    show(picture, all.find((part) => part.node.matches(".k-best")) || all[0]);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    const picture = pictureOf(event), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!picture || !step) return;
    const all = partsOf(picture), now = all.indexOf(shown);
    show(picture, all[(now + step + all.length) % all.length]);
    event.preventDefault();
  });
})();
