#include <stdio.h>
#include "support_model.h"
/* which colour is left of which: no colour, no stripe tells */
int main(int argc,char**argv){ (void)argc;(void)argv;
  dlora_model *model = test_load_vit(1, NULL);
  const int64_t c[12]={10,11,20,21,30,31,40,41,50,51,60,61};
  for (int ep=2; ep<=40; ep*=4) for (int per=20; per<=60; per+=40) {
  dlora_learner_options o = test_quick_options(); o.relevance=4; o.learning_rate=5e-3f; o.frozen_baseline=1; o.epochs=(size_t)ep; o.first_block=0;
  dlora_learner *l=test_learner(model,&o); dlora_task_report r=DLORA_TASK_REPORT_INIT;
  test_learn(l,c,6,(size_t)per,1,&r);
  struct test_pictures p=test_pictures(c,6,40,77);
  dlora_evaluation e=DLORA_EVALUATION_INIT; dlora_image_source s=test_source_of(&p);
  dlora_learner_evaluate(l,&s,&e); printf("ep %d per %d loss %g -> %g acc %g frozen %g ece %g  (%.3fs)\n",ep,per,r.first_loss,r.last_loss,e.accuracy,e.frozen_accuracy,e.ece,r.seconds_train);
  dlora_learner_destroy(l); test_pictures_free(&p);} 
  dlora_model_destroy(model); return 0;}
