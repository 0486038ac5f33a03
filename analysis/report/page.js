"use strict";
// Draws the pictures in the reader's colours, draws them anew when the theme changes, and sorts
// tables. The pictures' data stand in the page as JSON; nothing is fetched.
(function () {
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");

  // "var(--s0)" anywhere in a picture stands for that CSS variable's value.
  function resolve(value, style) {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, style)]));
    }
    return value;
  }

  function axis(own, style) {
    return Object.assign({ gridcolor: "var(--line)", linecolor: "var(--line)", zerolinecolor: "var(--line)", automargin: true }, own);
  }

  function draw(element) {
    const picture = pictures[element.dataset.picture];
    const style = getComputedStyle(document.documentElement);
    const own = picture.layout;
    const layout = Object.assign(
      {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: "var(--ink)", family: getComputedStyle(document.body).fontFamily, size: 13 },
        hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
        hovermode: "closest",
        showlegend: true,
        dragmode: "zoom",
      },
      own,
      {
        autosize: true,
        margin: Object.assign({ l: 10, r: 12, t: 12, b: own.xaxis.title ? 92 : 74 }, own.margin),
        legend: Object.assign({ orientation: "h", x: 0, y: 0, yanchor: "bottom", yref: "container", font: { size: 12 } }, own.legend),
        xaxis: axis(own.xaxis),
        yaxis: axis(own.yaxis),
      }
    );
    if (narrow.matches) {
      // A phone has room for every other tick, and needs more of it for a legend's lines.
      const thin = (list) => list && list.filter((_, place) => place % 2 === 0);
      layout.xaxis.tickvals = thin(layout.xaxis.tickvals);
      layout.xaxis.ticktext = thin(layout.xaxis.ticktext);
      const lines = picture.data.reduce((sum, one) => sum + (one.name || "").split("<br>").length, 0);
      layout.height = own.height + Math.max(22 * lines - 40, 0);
      element.style.height = layout.height + "px";
    } else {
      element.style.height = own.height + "px";
    }
    const config = { displaylogo: false, responsive: true, scrollZoom: own.dragmode === "pan", displayModeBar: false };
    return Plotly.react(element, resolve(picture.data, style), resolve(layout, style), config).then(() => {
      element.dataset.drawn = "yes";
    });
  }

  function visible(element) {
    return element.closest("details:not([open])") === null;
  }

  function drawAll() {
    document.querySelectorAll(".picture").forEach((element) => {
      if (visible(element)) draw(element);
      else delete element.dataset.drawn;
    });
  }

  document.querySelectorAll("details").forEach((details) => {
    details.addEventListener("toggle", () => {
      if (!details.open) return;
      details.querySelectorAll(".picture:not([data-drawn])").forEach(draw);
    });
  });
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  drawAll();

  document.querySelectorAll("table.sortable th button").forEach((button) => {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const column = heading.cellIndex;
      const body = heading.closest("table").tBodies[0];
      const sign = heading.getAttribute("aria-sort") === "descending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.number === undefined ? null : Number(cell.dataset.number);
      };
      const rows = Array.from(body.rows).sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null && y === null) {
          return -sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        }
        // What is not known stands last, whichever way the rest is sorted.
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x - y);
      });
      heading.parentElement.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      rows.forEach((row) => body.append(row));
    });
  });
})();
