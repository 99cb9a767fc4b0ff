"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll("[data-figure]")];

  // ---- light and dark: the system's choice until the button is pressed
  const system = matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function themed(layout) {
    const axis = { gridcolor: color("--grid"), linecolor: color("--line"), automargin: true };
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--quiet"), size: 12 },
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--text") } },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
    };
  }

  function draw() {
    for (const plot of plots) {
      const figure = figures[plot.dataset.figure];
      Plotly.react(plot, figure.data, themed(figure.layout), { responsive: true, displaylogo: false, displayModeBar: false });
    }
  }

  function setTheme(name) {
    root.dataset.theme = name;
    draw();
  }

  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  system.addEventListener("change", () => setTheme(system.matches ? "dark" : "light"));
  setTheme(system.matches ? "dark" : "light");

  // ---- filters over the sampled attempts
  const PAGE = 20;
  const form = document.getElementById("filters");
  if (form) {
    const cards = [...document.querySelectorAll(".attempt")];
    const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
    const more = document.getElementById("more");
    let shown = PAGE;

    const fits = (card, wanted) =>
      ["effort", "outcome", "fate", "step"].every((name) => !wanted[name] || card.dataset[name] === wanted[name]) &&
      texts.get(card).includes(wanted.text.toLowerCase());

    const apply = () => {
      const wanted = Object.fromEntries(new FormData(form));
      const matching = cards.filter((card) => fits(card, wanted));
      const visible = new Set(matching.slice(0, shown));
      for (const card of cards) card.hidden = !visible.has(card);
      more.hidden = matching.length <= shown;
      document.getElementById("count").textContent = `${matching.length} of ${cards.length}`;
    };

    form.addEventListener("input", () => { shown = PAGE; apply(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { shown += PAGE; apply(); });
    apply();
  }

  // ---- notes of the steps
  const tip = document.getElementById("tip");
  const show = (event) => {
    const step = event.target.closest("[data-note]");
    tip.hidden = !step;
    if (!step) return;
    tip.textContent = step.dataset.note;
    const box = step.getClientRects()[0];
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 16)) + scrollX}px`;
    tip.style.top = `${box.bottom + 6 + scrollY}px`;
  };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", () => { tip.hidden = true; });
})();
